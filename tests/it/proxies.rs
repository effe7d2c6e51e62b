//! Proxies: of the config and of the environment, of HTTP and of SOCKS; and what is said of one that leads
//! nowhere.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use zg_tokend::testing::demo::{IssuerOptions, Server};
use zg_tokend::testing::secret::Secret;

use crate::common::gateway::{Gateway, Manner};
use crate::common::{Output, Sandbox, audit, finish, tls, write_private};

const OPEN: Manner = Manner::Http { answer: "200 Connection established" };

/// A server with TLS, which has names that lead to it by a proxy alone.
struct Remote {
    sandbox: Sandbox,
    server: Server,
    seed: Secret,
    port: u16,
}

impl Remote {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let server = tls::serve(IssuerOptions::default(), &sandbox.path("ca.pem"));
        let endpoint = server.token_endpoint();
        let port = endpoint.split(['/', ':']).find_map(|part| part.parse().ok()).unwrap();
        let seed = server.seed("demo").unwrap();
        Self { sandbox, server, seed, port }
    }

    fn configure(&self, host: &str, extra: &str) {
        self.sandbox.write_config(&format!(
            "token_endpoint = \"https://{host}/token\"\nclient_id = \"demo\"\nrefresh_token = \"{}\"\n\
             ca_file = \"{}\"\n{extra}\n",
            self.seed.expose(),
            self.sandbox.path("ca.pem").display()
        ));
    }

    fn gateway(&self, manner: Manner) -> Gateway {
        Gateway::start(manner, self.port)
    }

    /// `once --force`, with this variable. No earlier failure makes it wait.
    fn once_with(&self, name: &str, value: &str) -> Output {
        let path = self.sandbox.path("state/zg-tokend/default/state");
        if let Ok(text) = fs::read(&path) {
            let mut state: Value = serde_json::from_slice(&text).unwrap();
            let members = state.as_object_mut().unwrap();
            members.retain(|name, _| name != "failure" && name != "forced");
            write_private(&path, state.to_string().as_bytes());
        }
        finish(self.sandbox.command(["once", "--force"]).env(name, value))
    }

    #[track_caller]
    fn once_gives(&self, code: i32) -> Output {
        let output = self.once_with("LANG", "C");
        assert_eq!(output.code, Some(code), "{output:?}");
        output
    }
}

#[test]
fn each_kind_of_proxy_leads_to_the_server() {
    let login = Some(("me", "p@ss"));
    for (manner, scheme, user, host, asked) in [
        (OPEN, "http", "", "as.test", "as.test:443"),
        (OPEN, "http", "me:p%40ss@", "as.test:8443", "as.test:8443 Basic bWU6cEBzcw=="),
        (Manner::Socks { login: None, code: 0 }, "socks5h", "", "as.test", "as.test:443"),
        (Manner::Socks { login, code: 0 }, "socks5h", "me:p%40ss@", "as.test", "as.test:443"),
        // A name would be resolved here.
        (Manner::Socks { login: None, code: 0 }, "socks5", "", "192.0.2.1", "192.0.2.1:443"),
    ] {
        let remote = Remote::new();
        let proxy = remote.gateway(manner);
        let url = format!("{scheme}://{user}{}", proxy.address());
        remote.configure(host, &format!("proxy = \"{url}\""));
        remote.once_gives(0);
        assert_eq!(proxy.asked(), [asked], "{url}");
        let live = remote.sandbox.run(["check", "--live"]);
        assert_eq!(live.code, Some(0), "{live:?}");
        assert!(live.stdout.contains(&format!("through the proxy {}", proxy.address())), "{live:?}");
        remote.configure(host, "");
        let output = remote.once_with("ALL_PROXY", &url);
        assert_eq!(output.code, Some(0), "{output:?}");
    }
}

#[test]
fn what_the_proxy_says_is_told_as_its_own_word() {
    let http = |answer| Manner::Http { answer };
    let socks = |code| Manner::Socks { login: None, code };
    for (manner, user, words, hint) in [
        (http("407 No"), "", "asks for a user name and a password (HTTP 407)", "USER:PASSWORD@"),
        (http("407 No"), "me:no@", "refuses its user name and password (HTTP 407)", "USER:PASSWORD@"),
        (
            http("407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM"),
            "",
            "asks for a login by Negotiate, NTLM, and only Basic is supported",
            "USER:PASSWORD@",
        ),
        (http("403 Forbidden"), "", "does not allow connections to as.test:443 (HTTP 403)", "NO_PROXY"),
        (http("401 No"), "me:no@", "refuses its user name and password (HTTP 401)", "USER:PASSWORD@"),
        (http("500 Error"), "", "cannot reach as.test:443 (HTTP 500 of the proxy)", "NO_PROXY"),
        (http("502 Bad Gateway"), "", "cannot reach as.test:443 (HTTP 502 of the proxy)", "NO_PROXY"),
        (http("503 Later"), "", "cannot reach as.test:443 (HTTP 503 of the proxy)", "NO_PROXY"),
        (http("504 Late"), "", "cannot reach as.test:443 (HTTP 504 of the proxy)", "NO_PROXY"),
        (socks(2), "", "cannot connect to as.test:443: its rules do not allow it", "NO_PROXY"),
        (socks(5), "", "cannot connect to as.test:443: connection refused", "NO_PROXY"),
        (
            Manner::Socks { login: Some(("me", "right")), code: 0 },
            "",
            "asks for a user name and a password",
            "USER:PASSWORD@",
        ),
        (
            Manner::Socks { login: Some(("me", "right")), code: 0 },
            "me:wrong@",
            "refuses its user name and password",
            "USER:PASSWORD@",
        ),
    ] {
        let remote = Remote::new();
        let proxy = remote.gateway(manner);
        let scheme = if matches!(manner, Manner::Http { .. }) { "http" } else { "socks5h" };
        remote.configure("as.test", &format!("proxy = \"{scheme}://{user}{}\"", proxy.address()));
        let output = remote.once_gives(69);
        let expected = format!("the proxy {} {words}", proxy.address());
        assert!(output.stderr.contains(&expected), "{output:?}");
        assert!(output.stderr.contains(hint) && !output.stderr.contains("wrong"), "{output:?}");
        assert_eq!(audit::posts(&remote.server.audit()), 0, "the provider has seen nothing");
    }
}

#[test]
fn a_proxy_that_is_none_is_told() {
    let remote = Remote::new();
    let proxy = remote.gateway(Manner::Socks { login: None, code: 0 });
    remote.configure("nowhere.invalid", &format!("proxy = \"socks5://{}\"", proxy.address()));
    let output = remote.once_gives(69);
    assert!(
        output.stderr.contains("nowhere.invalid cannot be resolved here (")
            && output.stderr.contains("socks5h://"),
        "{output:?}"
    );
    assert!(output.stderr.contains("hint: check `proxy` in the config"), "{output:?}");
    // It speaks TLS.
    remote.configure("as.test", &format!("proxy = \"http://127.0.0.1:{}\"", remote.port));
    let output = remote.once_gives(69);
    assert!(
        output.stderr.contains("the proxy 127.0.0.1:") && output.stderr.contains("HTTP proxy"),
        "{output:?}"
    );
    for (proxy, words) in [
        ("socks4://127.0.0.1:1", "socks5h://"),
        ("ftp://127.0.0.1:1", "is neither http"),
        ("http://", "not a URL with a host"),
    ] {
        remote.configure("as.test", &format!("proxy = \"{proxy}\""));
        let output = remote.once_gives(78);
        assert!(output.stderr.contains(words), "{output:?}");
        remote.configure("as.test", "");
        let output = remote.once_with("HTTPS_PROXY", proxy);
        assert_eq!(output.code, Some(69), "{output:?}");
        assert!(output.stderr.contains("the proxy in the environment"), "{output:?}");
    }
}

#[test]
fn the_config_decides_before_the_environment() {
    let remote = Remote::new();
    let (own, other) = (remote.gateway(OPEN), remote.gateway(OPEN));
    remote.configure("as.test", &format!("proxy = \"http://{}\"", own.address()));
    assert_eq!(remote.once_with("HTTPS_PROXY", other.address()).code, Some(0));
    assert_eq!((own.asked().len(), other.asked().len()), (1, 0));
    // By name the server is reached by a proxy alone.
    remote.configure("as.test", "proxy = \"none\"");
    assert_eq!(remote.once_with("HTTPS_PROXY", other.address()).code, Some(69));
    assert_eq!(other.asked().len(), 0);
    remote.configure("as.test", &format!("proxy = \"http://{}\"", own.address()));
    assert_eq!(remote.once_with("NO_PROXY", "*.test").code, Some(69));
    assert_eq!(own.asked().len(), 1);
}

#[test]
fn a_proxy_may_stand_where_secrets_do() {
    let remote = Remote::new();
    let proxy = remote.gateway(OPEN);
    let file = remote.sandbox.path("proxy");
    write_private(&file, format!("http://me:secret@{}\n", proxy.address()).as_bytes());
    remote.configure("as.test", &format!("proxy = {{ file = \"{}\" }}", file.display()));
    remote.once_gives(0);
    let check = remote.sandbox.run(["check"]);
    assert!(check.code == Some(0) && check.stdout.contains("proxy: read from file"), "{check:?}");
    write_private(&file, b"ftp://me:secret@x");
    let output = remote.once_gives(69);
    assert!(output.stderr.contains("the proxy in the config is neither http"), "{output:?}");
    let check = remote.sandbox.run(["check"]);
    assert!(check.code == Some(78) && !check.stdout.contains("secret@"), "{check:?}");
    fs::remove_file(&file).unwrap();
    let output = remote.once_gives(69);
    assert!(output.stderr.contains("cannot read proxy from file"), "{output:?}");
    // In the config a password is a secret like others.
    remote.sandbox.write_config(
        "token_endpoint = \"https://as.test/token\"\nclient_id = \"demo\"\nproxy = \"http://me:secret@x.test:1\"\n",
    );
    fs::set_permissions(remote.sandbox.config_path(), Permissions::from_mode(0o644)).unwrap();
    let output = remote.once_gives(78);
    assert!(output.stderr.contains("holds a secret") && !output.stderr.contains("secret@"), "{output:?}");
}

/// Cron and services do not have the variables of a shell.
#[test]
fn a_proxy_that_the_environment_has_no_more_is_remembered() {
    let remote = Remote::new();
    let proxy = remote.gateway(OPEN);
    remote.configure("as.test", "");
    let output = remote.once_with("HTTPS_PROXY", proxy.address());
    assert_eq!(output.code, Some(0), "{output:?}");
    let output = remote.once_gives(69);
    let words = format!("the last refresh came by the proxy {}", proxy.address());
    assert!(output.stderr.contains(&words), "{output:?}");
    let status = remote.sandbox.run(["status"]);
    assert!(status.stdout.contains("the last refresh came by"), "{status:?}");
    // With it all is well, and nothing is said where the config names it.
    let output = remote.once_with("HTTPS_PROXY", proxy.address());
    assert_eq!(output.code, Some(0), "{output:?}");
    remote.configure("as.test", "proxy = \"http://127.0.0.1:1\"");
    let output = remote.once_gives(69);
    assert!(!output.stderr.contains("the last refresh came by"), "{output:?}");
    remote.configure("as.test", &format!("proxy = \"http://{}\"", proxy.address()));
    remote.once_gives(0);
    remote.configure("as.test", "");
    let output = remote.once_gives(69);
    assert!(!output.stderr.contains("the last refresh came by"), "{output:?}");
}
