//! The fuzz targets, and the properties that must hold for any bytes. `cargo fuzz` drives these functions,
//! and so do the ordinary tests, with mutations of the same corpus.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use zg_tokend::testing::clock::Timestamp;
use zg_tokend::testing::config::{self, Environment};
use zg_tokend::testing::oauth::{
    Answer, ClientAuthentication, MAX_TOKEN_BYTES, Reply, ReplyContext, TokenClient, classify,
};
use zg_tokend::testing::refresh::Record;
use zg_tokend::testing::refresh::{Action, Event, LoginHint, Policy, Refresher, Terms};
use zg_tokend::testing::refresh::{FileView, Inputs, Loaded, Trigger};
use zg_tokend::testing::secret::{Fingerprint, Secret};
use zg_tokend::testing::store::{Stored, parse};

/// The secrets that were sent: no message may contain them.
const SENT: &str = "plainwordsent";

/// The longest wait that a server can ask for.
const LONGEST: Duration = Duration::from_secs(3600);

const STATUSES: [u16; 16] = [200, 201, 204, 301, 307, 400, 401, 403, 408, 429, 500, 502, 503, 504, 524, 999];

/// The first byte chooses the status, the rest is the body.
pub fn token_response(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let status = STATUSES[usize::from(*kind) % STATUSES.len()];
    judge(&Reply { status, body: body.to_vec().into(), ..Reply::default() });
}

/// The headers of a reply, one a line: Retry-After, Date, Location, Content-Type.
pub fn retry_after(data: &[u8]) {
    let headers = String::from_utf8_lossy(data);
    let mut lines = headers.split('\n').map(str::to_owned);
    let whole = Reply {
        retry_after: lines.next(),
        date: lines.next(),
        location: lines.next(),
        content_type: lines.next(),
        ..Reply::default()
    };
    for status in [200, 302, 429, 503] {
        judge(&Reply { status, ..whole.clone() });
    }
}

fn judge(reply: &Reply) {
    let sent = Secret::new(SENT);
    let secrets = [&sent];
    let context = ReplyContext { now: now(), default_lifetime: LONGEST, known_secrets: &secrets };
    let answer = classify(Ok(reply), &context);
    let is_transient = matches!(reply.status, 408 | 425 | 429 | 500..=599);
    assert!(!is_transient || !matches!(answer, Answer::InvalidGrant(_)), "{answer:?}");
    let refresh_token = match &answer {
        Answer::Granted(grant) => {
            assert_usable(&grant.access_token);
            let year = Duration::from_secs(365 * 24 * 3600);
            assert!(grant.expires_in >= Duration::from_secs(1) && grant.expires_in <= year, "{answer:?}");
            grant.refresh_token.as_ref()
        }
        Answer::Defective { refresh_token, .. } => refresh_token.as_ref(),
        _ => None,
    };
    if let Some(token) = refresh_token {
        assert_usable(token);
    }
    assert!(answer.retry_after().is_none_or(|wait| wait <= LONGEST), "{answer:?}");
    let words = format!("{answer} {} {:?}", answer.kind(), answer.hint());
    assert!(!words.contains(SENT), "{words}");
    assert!(words.len() < 8192 && !words.chars().any(char::is_control), "{words:?}");
    // Debug is for us, and has no secrets either.
    assert!(!format!("{reply:?} {answer:?}").contains(SENT), "{answer:?}");
}

fn assert_usable(token: &Secret) {
    let bytes = token.expose().as_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= MAX_TOKEN_BYTES, "{} bytes", bytes.len());
    assert!(bytes.iter().all(|byte| (0x20..=0x7e).contains(byte)), "a forbidden character");
}

/// A config file.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let home = |name: &str| Some(PathBuf::from("/home/x").join(name));
    let environment = Environment {
        config_file: None,
        home: home(""),
        config_home: home(".config"),
        state_home: home(".local/state"),
    };
    match config::parse(&text, Path::new("/etc/zg-tokend/x.toml"), &environment) {
        Ok(settings) => {
            assert!(!settings.accounts.is_empty() && settings.state_dir.is_absolute());
            for account in &settings.accounts {
                assert!(account.token_file.path.is_absolute() && account.timeout <= Duration::from_secs(30));
            }
        }
        Err(error) => {
            let words = format!("{error} {:?}", error.hint());
            assert!(!words.is_empty() && words.len() < 16 * 1024, "{} bytes", words.len());
        }
    }
}

/// A state file. A state that can be parsed is written and read again, and a pass is made over it:
/// no instant or number in it may upset the clocks' arithmetic.
pub fn state(data: &[u8]) {
    let Ok(Stored::Record(record)) = parse(data) else { return };
    let again = serde_json::to_vec(&*record).expect("a record can always be written");
    match parse(&again) {
        Ok(Stored::Record(read)) => assert_eq!(read, record),
        other => panic!("{other:?}"),
    }
    for force in [false, true] {
        for granted in [false, true] {
            pass(&record, force, granted);
        }
    }
}

fn pass(record: &Record, force: bool, granted: bool) {
    let policy = Policy {
        from: None,
        account: record.account.as_str().into(),
        inline_seed: None,
        terms: Arc::new(Terms {
            lock_patience: zg_tokend::testing::refresh::LOCK_PATIENCE,
            config: record.config.as_str().into(),
            grant_type: zg_tokend::testing::oauth::GrantType::RefreshToken,
            skew: None,
            default_lifetime: LONGEST,
            horizon: Some(Duration::from_secs(300)),
            login_hint: LoginHint::new(|_| String::new()),
            reread_secrets: None,
            fleet: None,
            remove_expired: true,
            patient: true,
        }),
    };
    let reply = if granted {
        let body = r#"{"access_token":"a","refresh_token":"r","expires_in":60}"#;
        Reply { status: 200, body: body.as_bytes().to_vec().into(), ..Reply::default() }
    } else {
        Reply { status: 503, retry_after: Some("10".into()), ..Reply::default() }
    };
    // In the boot that the state is of, or both clocks would not be put to the test.
    let boot_id = record.access_token.as_ref().map(|token| token.issued_at.boot_id);
    let now = || Timestamp { boot_id: boot_id.unwrap_or(now().boot_id), ..now() };
    let context = ReplyContext { now: now(), default_lifetime: LONGEST, known_secrets: &[] };
    let loaded = || Box::new(Loaded { record: Some(record.clone()), garbage: None, file: FileView::Missing });
    let mut core = Refresher::new(policy, u64::MAX);
    let trigger = Trigger { force, ..Trigger::default() };
    let mut actions = core.handle(now(), Event::Begin(trigger));
    let mut prepared = false;
    // One pass has fewer steps; what repeats itself beyond that is stopped here.
    for _ in 0..64 {
        if actions.is_empty() {
            break;
        }
        let event = match actions.remove(0) {
            Action::Load => Event::Loaded(Ok(loaded())),
            Action::ReadInputs => {
                Event::InputsRead(Ok(Inputs::new(Some(Secret::new("seed")), None, client("c"))))
            }
            Action::Lock => Event::Locked(Ok(loaded())),
            Action::TakeOver(_) => Event::TakenOver(Ok(None)),
            Action::Prepare(_) => {
                prepared = true;
                Event::Prepared(Ok(()))
            }
            Action::Request(_) => {
                assert!(prepared, "a request without preparation");
                Event::Answered(classify(Ok(&reply), &context))
            }
            Action::Persist(record) => {
                serde_json::to_vec(&*record).expect("a record can always be written");
                Event::Persisted(Ok(()))
            }
            Action::Publish(token) => {
                assert!(token.expires_at().wall >= token.issued_at.wall);
                Event::Published(Ok(Vec::new()))
            }
            Action::Ask(_) => unreachable!("there is no fleet"),
            Action::Withdraw(_) => Event::Withdrawn(Ok(())),
            Action::Unlock => Event::Unlocked,
            Action::Report(_) => continue,
        };
        actions.extend(core.handle(now(), event));
    }
    let _ = core.next_wakeup();
}

/// The RFC's own example, Sun, 06 Nov 1994 08:49:37 GMT.
fn now() -> Timestamp {
    Timestamp { wall: 784_111_777_000, boot: 1_000_000, boot_id: Fingerprint::of([b"boot"]) }
}

fn client(client_id: &str) -> TokenClient {
    TokenClient {
        token_endpoint: "https://as.example/token".parse().expect("a URL"),
        client_id: client_id.into(),
        client_authentication: ClientAuthentication::None,
        scope: None,
        extra_params: Vec::new(),
        shape: zg_tokend::testing::oauth::Shape::default(),
    }
}
