//! The planted secrets, the outputs, and a search of the one in the other.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::common::world::World;
use crate::common::{Sandbox, figure, finish};

/// The planted secrets and the outputs.
#[derive(Default)]
pub(super) struct Search {
    secrets: Vec<String>,
    emitted: Vec<(String, Vec<u8>)>,
}

impl Search {
    pub(super) fn plant(&mut self, secret: &str) -> String {
        if !self.secrets.iter().any(|known| known == secret) {
            self.secrets.push(secret.to_owned());
        }
        secret.to_owned()
    }

    pub(super) fn emit(&mut self, whence: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.emitted.push((whence.into(), bytes.into()));
    }

    /// Runs the binary, and takes what it says.
    pub(super) fn run(&mut self, sandbox: &Sandbox, args: &[&str]) {
        self.take(&args.join(" "), &mut sandbox.command(args.iter().copied()));
    }

    pub(super) fn take(&mut self, name: &str, command: &mut Command) {
        let output = finish(command);
        // A program that panics would say more than it should.
        assert!(output.code.is_some_and(|code| code != 101 && code != 134), "{output:?}");
        self.emit(format!("stdout of {name}"), output.stdout);
        self.emit(format!("stderr of {name}"), output.stderr);
    }

    /// Asks the control socket of the `run` in a sandbox, by POST if there is a body.
    pub(super) fn ask(&mut self, sandbox: &Sandbox, path: &str, body: Option<&str>) {
        let mut curl = Command::new("curl");
        curl.args(["-q", "-sSi", "--max-time", "100", "--unix-socket"]);
        curl.arg(sandbox.path("runtime/zg-tokend/control.sock")).arg(format!("http://localhost{path}"));
        if let Some(body) = body {
            curl.args(["-H", "content-type: application/json", "--data-binary", body]);
        }
        let output = finish(&mut curl);
        assert_eq!(output.code, Some(0), "{output:?}");
        self.emit(format!("the reply to {path}"), output.stdout);
    }

    /// The tokens of the state, which are planted by the server.
    pub(super) fn plant_tokens(&mut self, world: &World) {
        for token in ["refresh_token", "access_token"] {
            // A word that a server calls a token may stand anywhere.
            if let Some(value) = world.state()[token]["value"].as_str().filter(|value| value.len() > 7) {
                self.plant(value);
            }
        }
    }

    /// Takes every file below a directory, but those in which secrets belong.
    pub(super) fn take_files(&mut self, directory: &Path, belongs: &dyn Fn(&Path) -> bool) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.take_files(&path, belongs);
            } else if !belongs(&path) && path.is_file() {
                self.emit(path.display().to_string(), fs::read(&path).unwrap());
            }
        }
    }

    /// Each secret that was found, and where.
    fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for secret in &self.secrets {
            let needles = encodings(secret);
            for (whence, bytes) in &self.emitted {
                let found = needles
                    .iter()
                    .any(|needle| bytes.windows(needle.len()).any(|part| part == needle.as_bytes()));
                if found {
                    leaks.push(format!("{secret} in {whence}: {}", String::from_utf8_lossy(bytes)));
                }
            }
        }
        leaks
    }

    #[track_caller]
    pub(super) fn assert_none(&self, what: &str) {
        let bytes: usize = self.emitted.iter().map(|(_, bytes)| bytes.len()).sum();
        let leaks = self.leaks();
        figure(format!(
            "secrets: {what}: {} planted, {} outputs of {bytes} bytes searched, {} leaks",
            self.secrets.len(),
            self.emitted.len(),
            leaks.len()
        ));
        assert_eq!(leaks, [""; 0]);
    }
}

/// A secret as it is, encoded as in forms and in URLs, and in Base64 at each of the three places it can
/// have there.
pub fn encodings(secret: &str) -> Vec<String> {
    let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let in_url = encoded.replace('+', "%20");
    let base64 = (0..3).map(|before| {
        let text = STANDARD_NO_PAD.encode([&b"\0\0\0"[..before], secret.as_bytes()].concat());
        // The characters at both ends depend on the neighbours.
        let (begin, end) = ([0, 2, 3][before], text.len() - 1);
        text[begin..end].to_owned()
    });
    [secret.to_owned(), encoded, in_url].into_iter().chain(base64).collect()
}
