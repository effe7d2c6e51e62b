use crate::clock::{BootId, Timestamp};
use crate::refresh::record::AccessToken;
use crate::store::seal::*;

fn now() -> Timestamp {
    Timestamp { wall: 1_700_000_000_000, boot: 0, boot_id: BootId::of([b"a"]) }
}

fn key(letter: char) -> StateKey {
    StateKey::new(Secret::new(format!("abcdefghij0123456789{}", letter.to_string().repeat(23)))).unwrap()
}

fn keys(current: Option<char>, previous: Option<char>) -> StateKeys {
    StateKeys { current: current.map(key), previous: previous.map(key), is_lost: false }
}

const SEALS: SealRules = SealRules { seals: true, plain_id_token: false };

/// A record with a secret in each place, as if it had been read.
fn record() -> Record {
    let mut record = Record::new("work", "/c.toml");
    record.take_seed(Secret::new("rt-old"), now());
    record.take_seed(Secret::new("rt-new"), now());
    record.access_token = Some(AccessToken {
        value: Secret::new("at"),
        token_type: "Bearer".into(),
        scope: None,
        issued_at: now(),
        lifetime_ms: 1,
        jitter_ms: 0,
        repeated: false,
        given: false,
        id_token: Some(Secret::new("a.b.c").into()),
    });
    written(&record)
}

/// Written and read again.
fn written(record: &Record) -> Record {
    let mut read: Record = serde_json::from_str(&serde_json::to_string(record).unwrap()).unwrap();
    note_places(&mut read);
    read
}

fn sealed_record() -> Record {
    let mut record = record();
    close(&mut record, Some(&keys(Some('x'), None)), SEALS).unwrap();
    written(&record)
}

#[test]
fn what_is_sealed_opens_with_its_key_alone_and_shows_nothing() {
    let sealed = sealed_record();
    assert_eq!((sealed.version, record().version), (VERSION, PLAIN_VERSION));
    let text = serde_json::to_string(&sealed).unwrap();
    for plain in ["rt-old", "rt-new", "a.b.c"] {
        assert!(!text.contains(plain), "{text}");
    }
    assert!(text.contains("\"at\""), "the access token lies in the token file anyway");
    for (keys, opens) in [
        (keys(Some('x'), None), true),
        (keys(Some('y'), Some('x')), true),
        (keys(None, Some('x')), true),
        (keys(Some('y'), None), false),
        (keys(None, None), false),
    ] {
        let mut opened = sealed.clone();
        assert_eq!(open(&mut opened, &keys), if opens { Ok(()) } else { Err(SealError::WrongKey) });
        if opens {
            let values: Vec<_> =
                secrets(&mut opened).map(|(_, secret)| secret.open().unwrap().clone()).collect();
            assert_eq!(values, ["rt-new", "rt-old", "a.b.c"].map(Secret::new));
        }
    }
}

#[test]
fn a_seal_is_bound_to_account_place_and_secret() {
    let swap = |change: fn(&mut Record)| {
        let mut sealed = sealed_record();
        change(&mut sealed);
        note_places(&mut sealed);
        open(&mut sealed, &keys(Some('x'), None))
    };
    assert_eq!(swap(|_| {}), Ok(()));
    assert_eq!(swap(|record| record.account = "other".into()), Err(SealError::WrongKey));
    assert_eq!(
        swap(|record| std::mem::swap(&mut record.refresh_token, &mut record.previous)),
        Err(SealError::WrongKey)
    );
    let forged = |text: fn(&str) -> String| {
        let mut sealed = sealed_record();
        let secret = &mut sealed.refresh_token.as_mut().unwrap().value;
        let changed = text(secret.sealed().unwrap());
        secret.set_sealed(Some(changed));
        open(&mut sealed, &keys(Some('x'), None))
    };
    for text in [
        |_: &str| String::new(),
        |_: &str| "###".into(),
        |text: &str| text[..40].into(),
        |text: &str| {
            let other = if &text[20..21] == "A" { "B" } else { "A" };
            format!("{}{other}{}", &text[..20], &text[21..])
        },
    ] {
        assert_eq!(forged(text), Err(SealError::WrongKey));
    }
}

#[test]
fn each_writing_has_a_seal_of_its_own() {
    let text = |record: &Record| record.refresh_token.as_ref().unwrap().value.sealed().unwrap().to_owned();
    assert_ne!(text(&sealed_record()), text(&sealed_record()));
}

#[test]
fn without_the_key_a_sealed_state_is_written_as_it_was_read() {
    for rules in [SEALS, SealRules::default()] {
        let (sealed, mut again) = (sealed_record(), sealed_record());
        let before = sealed.refresh_token.as_ref().unwrap().value.sealed().map(str::to_owned);
        again.refresh_token.as_mut().unwrap().value.set_sealed(before.clone());
        close(&mut again, None, rules).unwrap();
        assert_eq!(again.refresh_token.as_ref().unwrap().value.sealed().map(str::to_owned), before);
        assert_eq!(again.version, VERSION);
    }
}

#[test]
fn nothing_new_is_written_in_plain_where_the_state_is_or_shall_be_sealed() {
    let with_new = |mut record: Record| {
        record.refresh_token.as_mut().unwrap().value = Secret::new("rt-newest").into();
        record
    };
    // The config has a key that cannot be read.
    assert_eq!(close(&mut with_new(record()), None, SEALS), Err(SealError::NoKey));
    // A state that has been plain all along may stay so meanwhile.
    assert_eq!(close(&mut record(), None, SEALS), Ok(()));
    // The config has lost its key.
    assert_eq!(close(&mut with_new(sealed_record()), None, SealRules::default()), Err(SealError::NoKey));
    // A seal that would not open in its new place.
    let mut moved = sealed_record();
    moved.refresh_token = moved.previous.take();
    assert_eq!(close(&mut moved, None, SEALS), Err(SealError::NoKey));
    // The same with the key at hand.
    for record in [record(), sealed_record()] {
        let mut record = record;
        let keys = keys(Some('y'), Some('x'));
        open(&mut record, &keys).unwrap();
        let mut record = with_new(record);
        record.previous = None;
        close(&mut record, Some(&keys), SEALS).unwrap();
        let mut read = written(&record);
        assert_eq!(open(&mut read, &StateKeys { previous: None, ..keys }), Ok(()));
    }
}

#[test]
fn the_previous_key_alone_lays_the_state_open() {
    let mut record = sealed_record();
    let keys = keys(None, Some('x'));
    open(&mut record, &keys).unwrap();
    close(&mut record, Some(&keys), SealRules::default()).unwrap();
    assert_eq!(record.version, PLAIN_VERSION);
    assert!(serde_json::to_string(&record).unwrap().contains("rt-new"));
}

#[test]
fn what_a_lost_key_sealed_is_left_out() {
    let mut record = sealed_record();
    let lost = StateKeys { is_lost: true, ..keys(Some('y'), None) };
    open(&mut record, &lost).unwrap();
    assert!(record.refresh_token.is_none() && record.previous.is_none());
    let token = record.access_token.as_ref().unwrap();
    assert_eq!((token.value.expose(), &token.id_token), ("at", &None));
    assert_eq!(record.seeds, sealed_record().seeds, "no seed of the config becomes new");
    record.take_seed(Secret::new("rt-newest"), now());
    close(&mut record, Some(&lost), SEALS).unwrap();
    let mut read = written(&record);
    assert_eq!(open(&mut read, &keys(Some('y'), None)), Ok(()));
    // With the right key nothing is lost.
    let mut record = sealed_record();
    open(&mut record, &StateKeys { is_lost: true, ..keys(Some('x'), None) }).unwrap();
    assert!(record.refresh_token.is_some() && record.previous.is_some());
}

#[test]
fn an_id_token_that_a_file_has_is_not_sealed() {
    let mut record = record();
    let rules = SealRules { plain_id_token: true, ..SEALS };
    close(&mut record, Some(&keys(Some('x'), None)), rules).unwrap();
    let text = serde_json::to_string(&record).unwrap();
    assert!(text.contains("a.b.c") && !text.contains("rt-new"), "{text}");
}

#[test]
fn a_key_is_no_passphrase() {
    for (text, good) in [
        ("abcdefghij0123456789abcdefghij0123456789ABC", true),
        ("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=", true),
        ("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", true),
        ("abcdefghij0123456789abcdefghij0123456789AB", false),
        ("correct horse battery staple correct horse battery staple", false),
        (&"a".repeat(64), false),
    ] {
        assert_eq!(StateKey::new(Secret::new(text)).is_ok(), good, "{text}");
    }
    assert!(StateKey::new(Secret::new(StateKey::random().unwrap().expose())).is_ok());
    assert_eq!(
        format!("{:?}", keys(Some('x'), None)),
        "StateKeys { current: Some([redacted]), previous: None, is_lost: false }"
    );
}
