//! The pages that the browser shows at the end of a login. Nothing in them comes from outside, no script
//! runs, and they hold no secret.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::problem::Problem;

/// Readable without anything else: system fonts, both colour schemes, contrast of 7:1 and more.
const STYLE: &str = include_str!("page.css");

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    status: u16,
    is_failure: bool,
    title: String,
    /// Sentences.
    paragraphs: Vec<String>,
    /// Facts, each with its name.
    facts: Vec<(&'static str, String)>,
}

impl Page {
    /// The login is stored.
    pub fn logged_in(account: &str, identity: Option<&str>, token_file: &str) -> Self {
        let mut facts = vec![("Account", account.to_owned())];
        facts.extend(identity.map(|identity| ("User", identity.to_owned())));
        facts.push(("Token file", token_file.to_owned()));
        Self {
            status: 200,
            is_failure: false,
            title: "You are logged in".into(),
            paragraphs: vec![
                "The login is stored. You can close this tab and go back to the terminal.".into(),
            ],
            facts,
        }
    }

    /// The login failed; nothing was changed.
    pub fn failed(account: &str, problem: &Problem) -> Self {
        let texts = [Some(&problem.message), problem.cause.as_ref(), problem.hint.as_ref()];
        let texts = texts.into_iter().flatten().map(|text| format!("{}.", capital(text)));
        let page = Self::failure(200, "The login failed", texts.collect());
        Self { facts: vec![("Account", account.to_owned())], ..page }
    }

    /// The request is no answer to this login.
    pub fn ignored() -> Self {
        let texts = [
            "Nothing was changed. A login in zg-tokend is still waiting for its own answer.",
            "Close this tab and use the address that zg-tokend shows in the terminal.",
        ];
        Self::failure(400, "This page belongs to another login", texts.map(str::to_owned).to_vec())
    }

    /// The request is none that a login makes.
    pub fn nothing(status: u16) -> Self {
        let text = "zg-tokend waits here for the answer to a login.";
        Self::failure(status, "There is nothing here", vec![text.to_owned()])
    }

    fn failure(status: u16, title: &str, paragraphs: Vec<String>) -> Self {
        Self { status, is_failure: true, title: title.into(), paragraphs, facts: Vec::new() }
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn html(&self) -> String {
        let class = if self.is_failure { " class=\"failed\"" } else { "" };
        let title = escape(&self.title);
        // With --remote it is not the one in front of the user.
        let host = escape(&rustix::system::uname().nodename().to_string_lossy());
        let mut body = String::new();
        // Writing to a string does not fail.
        for text in &self.paragraphs {
            let _ = writeln!(body, "<p>{}</p>", marked(text));
        }
        for (at, (name, value)) in self.facts.iter().enumerate() {
            let begin = if at == 0 { "<dl>\n" } else { "" };
            let _ = writeln!(body, "{begin}<dt>{name}</dt><dd>{}</dd>", escape(value));
        }
        if !self.facts.is_empty() {
            body.push_str("</dl>\n");
        }
        format!(
            include_str!("page.html"),
            title = title,
            style = STYLE,
            class = class,
            body = body,
            host = host
        )
    }

    /// Headers of every page: nothing may be loaded, kept, framed or told to another site.
    pub fn headers() -> [(&'static str, String); 6] {
        let hash = STANDARD.encode(Sha256::digest(STYLE));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        [
            ("content-type", "text/html; charset=utf-8".into()),
            ("content-security-policy", policy),
            ("referrer-policy", "no-referrer".into()),
            ("cache-control", "no-store".into()),
            ("x-content-type-options", "nosniff".into()),
            ("cross-origin-resource-policy", "same-origin".into()),
        ]
    }
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control()) {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Escaped, and what stands between backquotes as code.
fn marked(text: &str) -> String {
    let parts = escape(text);
    let mut parts = parts.split('`');
    let mut html = parts.next().unwrap_or_default().to_owned();
    while let Some(code) = parts.next() {
        let _ = write!(html, "<code>{code}</code>{}", parts.next().unwrap_or_default());
    }
    html
}

#[cfg(test)]
mod tests {
    use crate::login::page::*;

    #[test]
    fn everything_in_a_page_is_escaped() {
        let problem = Problem {
            cause: Some("<b>it</b> is so".into()),
            hint: Some("run `zg-tokend <x>` & wait".into()),
            ..Problem::bug("it said \"<script>alert('x')</script>\"")
        };
        let page = Page::failed("a<b>", &problem);
        let html = page.html();
        assert!(!html.contains("<script") && !html.contains("a<b>"), "{html}");
        assert!(html.contains("It said &quot;&lt;script&gt;"), "{html}");
        assert!(html.contains("<p>&lt;b&gt;it&lt;/b&gt; is so.</p>"), "{html}");
        assert!(html.contains("Run <code>zg-tokend &lt;x&gt;</code> &amp; wait."), "{html}");
    }

    #[test]
    fn a_page_loads_nothing_and_can_be_read_aloud() {
        let html = Page::logged_in("work", Some("u@example.com"), "/home/u/token").html();
        assert!(html.contains("<html lang=\"en\">") && html.matches("<h1>").count() == 1);
        assert!(!html.contains("://") && !html.contains("src="), "{html}");
        for fact in ["work", "u@example.com", "/home/u/token"] {
            assert!(html.contains(&format!("<dd>{fact}</dd>")), "{html}");
        }
        let headers = Page::headers();
        let policy = &headers.iter().find(|(name, _)| *name == "content-security-policy").unwrap().1;
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
}
