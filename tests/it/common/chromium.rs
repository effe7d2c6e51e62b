//! A real browser: Chromium, driven by chromedriver (W3C WebDriver).

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Background, curl, leave_out, wait_until};

/// One window of Chromium, closed when this is dropped.
pub struct Chromium {
    /// Of the session.
    url: String,
    _driver: Background,
    _profile: TempDir,
}

impl Chromium {
    /// Starts it. Certificates are not checked: the test servers make their own. `None` where it is not
    /// installed and need not be: for an ordinary user outside CI.
    pub fn start() -> Option<Self> {
        if Command::new("chromedriver").arg("--version").output().is_err() {
            leave_out("logins in a browser: chromium and chromium-driver are not installed");
            return None;
        }
        let profile = TempDir::new().unwrap();
        let mut command = Command::new("chromedriver");
        // It chooses a free port, and says which.
        command.arg("--port=0").env("HOME", profile.path()).env("TMPDIR", profile.path());
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        let driver = Background::start(&mut command, profile.path().join("chromedriver.log"));
        let port = wait_until("chromedriver", || {
            let log = driver.log();
            let (_, rest) = log.split_once("started successfully on port ")?;
            Some(rest.split_once('.')?.0.to_owned())
        });
        let base = format!("http://127.0.0.1:{port}/session");
        let data = profile.path().join("profile");
        let arguments = [
            "--headless=new".to_owned(),
            // Its sandbox does not work as root. It meets no page but those of the tests.
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            // A container may have little of it.
            "--disable-dev-shm-usage".into(),
            // It ends when chromedriver does, however that ends.
            "--remote-debugging-pipe".into(),
            "--no-proxy-server".into(),
            format!("--user-data-dir={}", data.display()),
        ];
        let wishes = json!({ "capabilities": { "alwaysMatch": {
            "acceptInsecureCerts": true,
            // The complaints of pages, as about their content security policy.
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        }}});
        // On a busy machine Chromium may be too slow for chromedriver.
        let id = wait_until("a session of Chromium", || {
            send(&base, "POST", Some(&wishes)).ok()?["sessionId"].as_str().map(str::to_owned)
        });
        Some(Self { url: format!("{base}/{id}"), _driver: driver, _profile: profile })
    }

    fn post(&self, command: &str, body: &Value) -> Result<Value, String> {
        send(&format!("{}/{command}", self.url), "POST", Some(body))
    }

    fn get(&self, command: &str) -> Result<Value, String> {
        send(&format!("{}/{command}", self.url), "GET", None)
    }

    /// Opens this address.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url })).unwrap();
    }

    /// The address in the address bar.
    pub fn address(&self) -> String {
        self.get("url").ok().and_then(|url| url.as_str().map(str::to_owned)).unwrap_or_default()
    }

    pub fn title(&self) -> String {
        self.get("title").ok().and_then(|title| title.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// The value of a JavaScript expression in the page.
    #[track_caller]
    pub fn value(&self, expression: &str) -> Value {
        self.try_value(expression).unwrap()
    }

    fn try_value(&self, expression: &str) -> Result<Value, String> {
        self.post("execute/sync", &json!({ "script": format!("return {expression}"), "args": [] }))
    }

    /// The text that is seen.
    #[track_caller]
    pub fn text(&self) -> String {
        self.value("document.body.innerText").as_str().unwrap().to_owned()
    }

    fn element(&self, selector: &str) -> Option<String> {
        let found = self.post("elements", &json!({ "using": "css selector", "value": selector })).ok()?;
        let first = found.as_array()?.first()?.as_object()?;
        first.values().next()?.as_str().map(str::to_owned)
    }

    /// Types into the field, when it is there.
    #[track_caller]
    pub fn fill_in(&self, selector: &str, text: &str) {
        wait_until(&format!("{selector} on {}", self.address()), || {
            let field = self.element(selector)?;
            self.post(&format!("element/{field}/value"), &json!({ "text": text })).ok()
        });
    }

    /// Clicks, and waits until the page is another one.
    #[track_caller]
    pub fn submit(&self, selector: &str) {
        self.value("window.isTheOldOne = true");
        let button = wait_until(selector, || self.element(selector));
        self.post(&format!("element/{button}/click"), &json!({})).unwrap();
        wait_until(&format!("another page than {}", self.address()), || {
            let is_old = self.try_value("window.isTheOldOne === true || document.readyState != 'complete'");
            (is_old == Ok(false.into())).then_some(())
        });
    }

    /// Prefers light or dark pages from now on.
    #[track_caller]
    pub fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let command = json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } });
        self.post("goog/cdp/execute", &command).unwrap();
    }

    /// Writes a picture of the page.
    #[track_caller]
    pub fn picture(&self, path: &Path) {
        use base64::Engine as _;
        let picture = self.get("screenshot").unwrap();
        let png = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap();
        fs::write(path, png).unwrap();
    }

    /// Its complaints since the last call.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("se/log", &json!({ "type": "browser" })).unwrap();
        log.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = Command::new("curl")
            .args(["-q", "-s", "--noproxy", "*", "--max-time", "20", "-X", "DELETE", &self.url])
            .output();
    }
}

/// One command of WebDriver.
fn send(url: &str, method: &str, body: Option<&Value>) -> Result<Value, String> {
    let text = body.map(Value::to_string);
    let mut args = vec!["-X", method, url, "-H", "content-type: application/json"];
    args.extend(text.iter().flat_map(|text| ["-d", text.as_str()]));
    let mut reply = curl(args).body;
    match reply["value"]["error"].as_str() {
        Some(error) => Err(format!("{method} {url}: {error}: {}", reply["value"]["message"])),
        None => Ok(reply["value"].take()),
    }
}
