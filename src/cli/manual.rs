//! `zg-tokend man`.
//!
//! The pages are files, and tests keep them in step with the command line and the exit codes.
//! Only the keys of the config come from their table.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::cli::args::{Man, ManualPage};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config::formats::FORMATS;
use crate::config::keys::{
    FLEET_KEYS, FORMS, HOOK_VARIABLES, KEYS, Key, OUTPUT_KEYS, PROBE_KEYS, PUSH_KEYS, Place, SIGNAL_KEYS,
};
use crate::oauth::providers::{PROVIDERS, Provider};

const COMMANDS: &str = include_str!("../../packaging/man/zg-tokend.1");
const CONFIG: &str = include_str!("../../packaging/man/zg-tokend.toml.5");

pub(super) fn man(flags: &Man) -> Exit {
    if flags.install {
        return install();
    }
    let page = match flags.page {
        ManualPage::Commands => commands(),
        ManualPage::Config => config(),
    };
    print(&page)
}

/// Where man(1) looks for the pages of a program in this directory: manpath(5) takes DIR/share/man for each
/// DIR/bin of PATH, such as ~/.cargo/bin.
fn directory() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let prefix = program.ancestors().nth(2).ok_or(ErrorKind::NotFound)?;
    Ok(prefix.join("share/man"))
}

fn install() -> Exit {
    let hint = "run it as a user who may write there, or print a page: zg-tokend man | man -l -";
    let directory = match directory() {
        Ok(directory) => directory,
        Err(error) => {
            output::error_for("this program does not know where it is", Some(&error.to_string()), Some(hint));
            return Exit::Io;
        }
    };
    for (name, text) in [("man1/zg-tokend.1", commands()), ("man5/zg-tokend.toml.5", config())] {
        let path = directory.join(name);
        let parent = path.parent().unwrap_or(&directory);
        if let Err(error) = fs::create_dir_all(parent).and_then(|()| fs::write(&path, text)) {
            let text = format!("cannot write {}", path.display());
            output::error_for(text, Some(&error.to_string()), Some(hint));
            return Exit::Io;
        }
        output::print_line(format!("wrote {}", path.display()));
    }
    Exit::Success
}

fn print(text: &str) -> Exit {
    if output::print(text.trim_end()) { Exit::Success } else { Exit::Io }
}

fn commands() -> String {
    COMMANDS.replace("@VERSION@", env!("CARGO_PKG_VERSION"))
}

fn config() -> String {
    let in_place = |place| joined(KEYS.iter().filter(|key| key.place == place), key_entry);
    [
        ("@VERSION@", env!("CARGO_PKG_VERSION").to_owned()),
        ("@KEYS account@", in_place(Place::Account)),
        ("@KEYS own@", in_place(Place::Own)),
        ("@KEYS file@", in_place(Place::File)),
        ("@KEYS outputs@", joined(OUTPUT_KEYS, key_entry)),
        ("@FORMATS@", joined(FORMATS, |format| entry(&format.usage(), format.doc))),
        ("@KEYS push@", joined(PUSH_KEYS, key_entry)),
        ("@KEYS probe@", joined(PROBE_KEYS, key_entry)),
        ("@KEYS signal@", joined(SIGNAL_KEYS, key_entry)),
        ("@KEYS fleet@", joined(FLEET_KEYS, key_entry)),
        ("@HOOK VARIABLES@", joined(HOOK_VARIABLES, |(name, doc)| entry(name, doc))),
        ("@PROVIDERS@", joined(PROVIDERS, provider_entry)),
        ("@FORMS@", joined(FORMS, |form| entry(form.example, form.doc))),
    ]
    .iter()
    .fold(CONFIG.to_owned(), |page, (marker, text)| page.replace(marker, text))
}

fn joined<T>(items: impl IntoIterator<Item = T>, entry: impl Fn(T) -> String) -> String {
    items.into_iter().map(entry).collect::<Vec<_>>().join("\n")
}

fn entry(name: &str, doc: &str) -> String {
    format!(".TP\n\\fB{}\\fR\n{}", roff(name), roff(doc))
}

fn key_entry(key: &Key) -> String {
    let [name, kind, doc, default, example] =
        [key.name, key.kind.describe(), key.doc, key.default, key.example].map(roff);
    format!(".TP\n\\fB{name}\\fR = {kind}\n{doc}\n.br\nDefault: {default}\n.br\nExample: {name} = {example}")
}

fn provider_entry(provider: &Provider) -> String {
    let lines = provider.describe().into_iter().map(|(name, value)| roff(&format!("{name}: {value}")));
    format!(".TP\n\\fB{}\\fR\n{}", roff(provider.name), lines.collect::<Vec<_>>().join("\n.br\n"))
}

/// Escapes the characters that roff would take for its own or replace by typographic ones.
fn roff(text: &str) -> String {
    text.replace('\\', r"\e").replace('-', r"\-").replace('\'', r"\(aq")
}

#[cfg(test)]
mod tests;
