use base64::engine::general_purpose::STANDARD;

use crate::demo::issuer::*;

/// An issuer, an instant, and short words for what a client does with them.
struct World {
    issuer: Issuer,
    now: i64,
}

#[derive(Debug)]
struct Grant {
    access_token: Secret,
    refresh_token: Option<Secret>,
    body: Value,
}

impl Grant {
    fn successor(self) -> Secret {
        self.refresh_token.expect("a rotated refresh token")
    }
}

fn post(body: &str) -> DemoRequest {
    let content_type = Some("application/x-www-form-urlencoded".to_owned());
    DemoRequest { content_type, authorization: None, body: body.to_owned().into() }
}

fn reply(result: Result<DemoReply, Refused>) -> DemoReply {
    result.unwrap_or_else(DemoReply::from)
}

fn error_of(reply: &DemoReply) -> (u16, String) {
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    (reply.status, body["error"].as_str().unwrap_or_default().to_owned())
}

impl World {
    fn new(options: IssuerOptions) -> Self {
        Self { issuer: Issuer::new(options), now: 1_000_000 }
    }

    fn strict() -> Self {
        Self::new(IssuerOptions::default())
    }

    fn with_grace(seconds: u64) -> Self {
        Self::new(IssuerOptions { reuse_grace: Duration::from_secs(seconds), ..IssuerOptions::default() })
    }

    fn seed(&mut self) -> Secret {
        self.issuer.seed(self.now, "demo").unwrap()
    }

    fn later(&mut self, seconds: i64) {
        self.now += seconds * 1000;
    }

    fn refresh(&mut self, token: &Secret) -> Result<Grant, (u16, String)> {
        let body = format!("grant_type=refresh_token&client_id=demo&refresh_token={}", token.expose());
        let reply = self.issuer.token(self.now, &post(&body));
        if reply.status != 200 {
            return Err(error_of(&reply));
        }
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        let secret = |name: &str| body[name].as_str().map(Secret::new);
        Ok(Grant {
            access_token: secret("access_token").unwrap(),
            refresh_token: secret("refresh_token"),
            body,
        })
    }

    fn is_live(&self, token: &Secret) -> bool {
        self.issuer.is_live(self.now, token)
    }

    fn is_active(&self, token: &Secret) -> bool {
        let body = format!("client_id=demo&token={}", token.expose());
        let reply = reply(self.issuer.introspect(self.now, &post(&body)));
        serde_json::from_slice::<Value>(&reply.body).unwrap()["active"] == true
    }

    fn kinds(&self) -> Vec<&AuditEvent> {
        self.issuer.audit().iter().map(|entry| &entry.event).collect()
    }
}

fn invalid_grant<T>() -> Result<T, (u16, String)> {
    Err((400, "invalid_grant".to_owned()))
}

#[track_caller]
fn assert_refused(refresh: Result<Grant, (u16, String)>) {
    assert_eq!(refresh.map(|_| ()), invalid_grant());
}

#[test]
fn every_refresh_replaces_the_refresh_token() {
    let mut world = World::strict();
    let mut token = world.seed();
    for generation in 0..3 {
        let grant = world.refresh(&token).unwrap();
        assert!(world.is_live(&grant.access_token));
        let last = world.issuer.audit().last().unwrap();
        assert_eq!((last.generation, last.refresh_token), (Some(generation), Some(token.fingerprint())));
        let successor = grant.successor();
        assert_ne!(successor, token);
        token = successor;
    }
}

#[test]
fn a_client_with_a_secret_asks_for_itself() {
    let clients = vec![DemoClient::public("demo"), DemoClient::post("machine", "secret")];
    let mut world = World::new(IssuerOptions { clients, ..IssuerOptions::default() });
    let mut ask = |rest: &str| {
        let body = format!("grant_type=client_credentials&{rest}");
        let reply = world.issuer.token(world.now, &post(&body));
        (reply.status, serde_json::from_slice::<Value>(&reply.body).unwrap())
    };
    let (status, body) = ask("client_id=machine&client_secret=secret");
    assert_eq!((status, body.get("refresh_token"), &body["scope"]), (200, None, &"api".into()));
    for (rest, error) in [
        ("client_id=demo", "unauthorized_client"),
        ("client_id=machine&client_secret=secret&scope=more", "invalid_scope"),
        ("client_id=machine", "invalid_client"),
    ] {
        assert_eq!(ask(rest).1["error"], error, "{rest}");
    }
    let token = Secret::new(body["access_token"].as_str().unwrap());
    assert!(world.is_live(&token));
    world.later(3600);
    assert!(!world.is_live(&token));
}

#[test]
fn without_rotation_the_seed_serves_for_ever() {
    let mut world = World::new(IssuerOptions { rotation: false, ..IssuerOptions::default() });
    let seed = world.seed();
    for _ in 0..3 {
        assert_eq!(world.refresh(&seed).unwrap().refresh_token, None);
    }
}

#[test]
fn reuse_revokes_the_whole_family_and_no_other() {
    let mut world = World::strict();
    let (seed, stranger) = (world.seed(), world.seed());
    let first = world.refresh(&seed).unwrap();
    let access_token = first.access_token.clone();
    let second = world.refresh(&first.successor()).unwrap();
    let untouched = world.refresh(&stranger).unwrap();

    assert_refused(world.refresh(&seed));

    assert!(!world.is_live(&access_token) && !world.is_live(&second.access_token));
    assert!(!world.is_active(second.refresh_token.as_ref().unwrap()));
    assert_refused(world.refresh(&second.successor()));
    assert!(world.is_live(&untouched.access_token));
    world.refresh(&untouched.successor()).unwrap();
    let reuse = AuditEvent::Revocation { reason: RevocationReason::Reuse };
    assert_eq!(world.kinds().iter().filter(|event| ***event == reuse).count(), 1);
}

#[test]
fn within_the_grace_the_same_successor_comes_again() {
    let mut world = World::with_grace(30);
    let seed = world.seed();
    let first = world.refresh(&seed).unwrap();
    world.later(29);
    let again = world.refresh(&seed).unwrap();
    assert_eq!(again.refresh_token, first.refresh_token);
    assert_ne!(again.access_token, first.access_token);
    assert!(matches!(world.kinds().last(), Some(AuditEvent::Grant { replayed: true, .. })));
    // A replay does not prolong the grace.
    world.later(1);
    assert_refused(world.refresh(&seed));
    assert!(!world.is_live(&again.access_token));
}

#[test]
fn the_grace_covers_only_the_previous_refresh_token() {
    let mut world = World::with_grace(30);
    let seed = world.seed();
    let first = world.refresh(&seed).unwrap().successor();
    let second = world.refresh(&first).unwrap();
    world.refresh(&first).unwrap();
    assert_refused(world.refresh(&seed));
    assert_refused(world.refresh(&second.successor()));
}

#[test]
fn access_tokens_die_on_time() {
    let mut world = World::new(IssuerOptions {
        access_token_lifetime: Duration::from_millis(2500),
        ..IssuerOptions::default()
    });
    let seed = world.seed();
    let grant = world.refresh(&seed).unwrap();
    assert_eq!(grant.body["expires_in"], 2);
    world.now += 2499;
    assert!(world.is_live(&grant.access_token));
    world.now += 1;
    assert!(!world.is_live(&grant.access_token) && !world.is_active(&grant.access_token));
}

#[test]
fn expires_in_can_lie() {
    let cases = [
        (ExpiresIn::True, json!(3600)),
        (ExpiresIn::Omitted, Value::Null),
        (ExpiresIn::Claimed(json!("3600")), json!("3600")),
        (ExpiresIn::Claimed(json!(0)), json!(0)),
    ];
    for (expires_in, said) in cases {
        let mut world = World::new(IssuerOptions { expires_in, ..IssuerOptions::default() });
        let seed = world.seed();
        assert_eq!(world.refresh(&seed).unwrap().body["expires_in"], said);
    }
}

#[test]
fn families_end_by_age_and_by_idleness() {
    let day = Duration::from_secs(86_400);
    let mut aged = World::new(IssuerOptions { family_lifetime: Some(day * 7), ..IssuerOptions::default() });
    let mut token = aged.seed();
    for _ in 0..6 {
        aged.later(86_400);
        token = aged.refresh(&token).unwrap().successor();
    }
    aged.later(86_400);
    assert!(!aged.is_active(&token));
    assert_refused(aged.refresh(&token));

    let mut idle = World::new(IssuerOptions { idle_limit: Some(day), ..IssuerOptions::default() });
    let token = idle.seed();
    idle.later(86_399);
    let token = idle.refresh(&token).unwrap().successor();
    idle.later(86_400);
    assert_refused(idle.refresh(&token));
}

#[test]
fn clients_authenticate_as_they_are_registered() {
    let basic = |pair: &str| Some(format!("Basic {}", STANDARD.encode(pair)));
    let clients = vec![
        DemoClient::public("pub"),
        DemoClient::basic("zg", "s3cret+/%: &="),
        DemoClient::post("form", "p0st"),
    ];
    let ok = (200, "");
    let cases = [
        ("a public client", None, "client_id=pub", ok),
        ("an encoded pair", basic("zg:s3cret%2B%2F%25%3A+%26%3D"), "", ok),
        (
            "the scheme in lower case",
            basic("zg:s3cret%2B%2F%25%3A+%26%3D").map(|h| h.replace("Basic", "basic")),
            "",
            ok,
        ),
        ("the same client_id twice", basic("zg:s3cret%2B%2F%25%3A%20%26%3D"), "client_id=zg", ok),
        (
            "another client_id",
            basic("zg:s3cret%2B%2F%25%3A%20%26%3D"),
            "client_id=pub",
            (400, "invalid_request"),
        ),
        ("an unencoded pair", basic("zg:s3cret+/%: &="), "", (401, "invalid_client")),
        ("a wrong secret", basic("zg:wrong"), "", (401, "invalid_client")),
        ("a pair that is none", basic("zg"), "", (401, "invalid_client")),
        ("another scheme", Some("Bearer x".to_owned()), "client_id=pub", (401, "invalid_client")),
        ("secret in the body", None, "client_id=form&client_secret=p0st", ok),
        ("a wrong one there", None, "client_id=form&client_secret=post", (401, "invalid_client")),
        (
            "basic by body",
            None,
            "client_id=zg&client_secret=s3cret%2B%2F%25%3A+%26%3D",
            (401, "invalid_client"),
        ),
        ("body by basic", basic("form:p0st"), "", (401, "invalid_client")),
        ("both", basic("form:p0st"), "client_id=form&client_secret=p0st", (400, "invalid_request")),
        ("no secret", None, "client_id=form", (401, "invalid_client")),
        ("a secret too many", None, "client_id=pub&client_secret=x", (401, "invalid_client")),
        ("a stranger", None, "client_id=who", (401, "invalid_client")),
        ("nobody", None, "", (401, "invalid_client")),
    ];
    for (name, authorization, fields, expected) in cases {
        let mut issuer = Issuer::new(IssuerOptions { clients: clients.clone(), ..IssuerOptions::default() });
        let owner = if fields.contains("pub") { "pub" } else { "zg" };
        let owner = if fields.contains("form") { "form" } else { owner };
        let token = issuer.seed(0, owner).unwrap();
        let body = format!("grant_type=refresh_token&refresh_token={}&{fields}", token.expose());
        let request = DemoRequest { authorization: authorization.clone(), ..post(&body) };
        let reply = issuer.token(0, &request);
        assert_eq!(error_of(&reply), (expected.0, expected.1.to_owned()), "{name}");
        let challenged = reply.headers.iter().any(|(name, _)| *name == "www-authenticate");
        assert_eq!(challenged, expected.0 == 401, "{name}");
    }
}

#[test]
fn bad_requests_get_their_error_and_cost_nothing() {
    let cases = [
        ("client_id=demo&refresh_token=TOKEN", "invalid_request"),
        ("client_id=demo&grant_type=refresh_token", "invalid_request"),
        ("client_id=demo&grant_type=refresh_token&refresh_token=", "invalid_request"),
        ("client_id=demo&grant_type=password&refresh_token=TOKEN", "unsupported_grant_type"),
        (
            "client_id=demo&grant_type=refresh_token&refresh_token=TOKEN&refresh_token=TOKEN",
            "invalid_request",
        ),
        ("client_id=demo&grant_type=refresh_token&refresh_token=TOKEN&scope=api+admin", "invalid_scope"),
        ("client_id=other&grant_type=refresh_token&refresh_token=TOKEN", "invalid_grant"),
        ("client_id=demo&grant_type=refresh_token&refresh_token=unknown", "invalid_grant"),
    ];
    let clients = vec![DemoClient::public("demo"), DemoClient::public("other")];
    for (body, error) in cases {
        let mut world = World::new(IssuerOptions { clients: clients.clone(), ..IssuerOptions::default() });
        let token = world.seed();
        let reply = world.issuer.token(world.now, &post(&body.replace("TOKEN", token.expose())));
        assert_eq!(error_of(&reply), (400, error.to_owned()), "{body}");
        assert!(
            matches!(world.kinds()[..], [AuditEvent::Seed, AuditEvent::Post, AuditEvent::Refusal { .. }]),
            "{body}"
        );
        world.refresh(&token).unwrap();
    }
    let json = DemoRequest { content_type: Some("application/json".into()), ..post("{}") };
    assert_eq!(error_of(&World::strict().issuer.token(0, &json)), (400, "invalid_request".to_owned()));
}

#[test]
fn a_scope_within_the_granted_one_is_fine() {
    let mut world = World::new(IssuerOptions { scope: "api mail".to_owned(), ..IssuerOptions::default() });
    let token = world.seed();
    let body = format!("client_id=demo&grant_type=refresh_token&scope=mail&refresh_token={}", token.expose());
    let reply = world.issuer.token(world.now, &post(&body));
    assert_eq!(serde_json::from_slice::<Value>(&reply.body).unwrap()["scope"], "mail");
}

#[test]
fn revocation_ends_what_it_is_asked_to() {
    let mut world = World::new(IssuerOptions {
        clients: vec![DemoClient::public("demo"), DemoClient::public("other")],
        ..IssuerOptions::default()
    });
    let seed = world.seed();
    let grant = world.refresh(&seed).unwrap();
    let access_token = grant.access_token.clone();
    let token = grant.successor();
    let revoke = |world: &mut World, client_id: &str, token: &Secret| {
        let body = format!("client_id={client_id}&token={}", token.expose());
        reply(world.issuer.revoke(world.now, &post(&body))).status
    };
    assert_eq!(revoke(&mut world, "other", &token), 400);
    assert_eq!(revoke(&mut world, "demo", &Secret::new("unknown")), 200);
    assert!(world.is_live(&access_token));

    assert_eq!(revoke(&mut world, "demo", &access_token), 200);
    assert!(!world.is_live(&access_token) && world.is_active(&token));

    let second = world.refresh(&token).unwrap();
    let access_token = second.access_token.clone();
    assert_eq!(revoke(&mut world, "demo", second.refresh_token.as_ref().unwrap()), 200);
    assert!(!world.is_live(&access_token));
    assert_refused(world.refresh(&second.successor()));
}

#[test]
fn a_login_can_be_ended_by_its_owner() {
    let mut world = World::strict();
    let seed = world.seed();
    assert!(!world.issuer.revoke_login(world.now, &Secret::new("unknown")));
    assert!(world.issuer.revoke_login(world.now, &seed));
    assert_refused(world.refresh(&seed));
}

#[test]
fn the_resource_challenges_as_rfc_6750_has_it() {
    let mut world = World::strict();
    let seed = world.seed();
    let grant = world.refresh(&seed).unwrap();
    let bearer = format!("Bearer {}", grant.access_token.expose());
    let refresh = format!("Bearer {}", seed.expose());
    let cases = [
        (Some(bearer.as_str()), 200, None),
        (None, 401, Some(false)),
        (Some("Basic eDp5"), 401, Some(false)),
        (Some("Bearer nonsense"), 401, Some(true)),
        (Some(refresh.as_str()), 401, Some(true)),
    ];
    for (authorization, status, names_error) in cases {
        let reply = world.issuer.resource(world.now, authorization);
        let challenge = reply.headers.iter().find(|(name, _)| *name == "www-authenticate");
        assert_eq!(reply.status, status);
        assert_eq!(challenge.map(|(_, value)| value.contains("invalid_token")), names_error);
    }
}

#[test]
fn the_audit_log_is_whole_and_holds_no_token() {
    let mut world = World::strict();
    let seed = world.seed();
    let grant = world.refresh(&seed).unwrap();
    assert_refused(world.refresh(&seed));
    let log = world.issuer.audit();
    let kinds: Vec<Value> = log.iter().map(|entry| json!(entry)["kind"].take()).collect();
    assert_eq!(json!(kinds), json!(["seed", "post", "grant", "post", "revocation", "refusal"]));
    assert!(log.iter().enumerate().all(|(at, entry)| entry.seq == at as u64));
    assert!(log.iter().all(|entry| (entry.family, entry.generation) == (Some(0), Some(0))));

    let text = json!(log).to_string();
    assert!(text.contains(&seed.fingerprint().to_string()));
    for token in [&seed, &grant.access_token, grant.refresh_token.as_ref().unwrap()] {
        assert!(!text.contains(token.expose()));
    }
    assert_eq!(serde_json::from_str::<Vec<AuditEntry>>(&text).unwrap(), log);
}

#[test]
fn equal_inputs_give_equal_tokens() {
    let (mut one, mut two) = (World::strict(), World::strict());
    let (a, b) = (one.seed(), two.seed());
    assert_eq!((&a, one.refresh(&a).unwrap().body), (&b, two.refresh(&b).unwrap().body));
    let mut other = World::new(IssuerOptions { random: [1; 32], ..IssuerOptions::default() });
    assert_ne!(other.seed(), a);
}
