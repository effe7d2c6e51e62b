//! Every variant of every error, as stderr shows it.

use std::any::type_name;
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::{Debug, Write as _};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::io::Errno;

use crate::account::set::NewLoginError;
use crate::account::token_file::PublishError;
use crate::cipher::NotAKey;
use crate::cli::config_file::ReplaceError;
use crate::cli::demo::DemoError;
use crate::cli::init::InitError;
use crate::cli::init::google::GoogleError;
use crate::cli::output::tests::elsewhere::{ANSWERS_AND_WARNINGS, ELSEWHERE};
use crate::cli::output::tests::shown;
use crate::cli::output::tests::sources::variants;
use crate::config::addition::AdditionError;
use crate::config::{ConfigError, NoIdToken, SecretFlaw};
use crate::daemon::RunError;
use crate::daemon::control::ControlError;
use crate::demo::server;
use crate::files::{FileError, PlaceError, Step};
use crate::golden::compare;
use crate::hooks::command::HookError;
use crate::hooks::signal::SignalError;
use crate::http::discovery::{DiscoveryError, DocumentError};
use crate::http::roots::RootsError;
use crate::oauth::{FailureKind, Sent, TokenFault, TransportFailure};
use crate::process::{ChildError, ProgramError};
use crate::push::PushError;
use crate::secrets::error::CommandError;
use crate::secrets::{SealedError, SecretError};
use crate::signing::key::KeyError;
use crate::store::fleet_error::{DatabaseFault, FleetError};
use crate::store::lock::LockError;
use crate::store::seal::SealError;
use crate::store::state::StateError;

/// Texts under the names of the variants that they are of.
#[derive(Default)]
struct Page {
    text: String,
    told: BTreeSet<String>,
}

impl Page {
    /// The text of an error.
    fn tell<E: Error + Debug>(&mut self, error: &E, hint: Option<String>) {
        self.tell_of(error, error, hint);
    }

    /// The same for an error that is only seen as the cause of another.
    fn tell_of<E: Debug>(&mut self, cause: &E, error: &dyn Error, hint: Option<String>) {
        let name = variant(cause);
        let hint = hint.unwrap_or_else(|| panic!("{name} leaves the user without a next step: {error}"));
        let _ = writeln!(self.text, "# {name}\n{}", shown(error, None, Some(&hint)));
        self.told.insert(name);
    }
}

/// `Enum::Variant`: Debug begins with the variant.
fn variant<E: Debug>(error: &E) -> String {
    let debug = format!("{error:?}");
    let variant = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap();
    format!("{}::{variant}", type_name::<E>().rsplit("::").next().unwrap())
}

fn path() -> PathBuf {
    "/home/u/dir/file".into()
}

fn os(errno: Errno) -> io::Error {
    errno.into()
}

#[test]
fn every_error_is_told_with_a_way_out() {
    let mut page = Page::default();
    config(&mut page);
    files(&mut page);
    state(&mut page);
    seals(&mut page);
    secrets(&mut page);
    given(&mut page);
    children(&mut page);
    network(&mut page);
    surroundings(&mut page);
    init(&mut page);
    keys(&mut page);
    fleet(&mut page);
    compare("errors", &page.text);
    let known: BTreeSet<_> = ELSEWHERE.map(str::to_owned).into_iter().chain(page.told).collect();
    let is_error = |variant: &String| !ANSWERS_AND_WARNINGS.contains(&variant.split("::").next().unwrap());
    let errors: BTreeSet<_> = variants().into_iter().filter(is_error).collect();
    assert_eq!(known, errors, "each variant has a golden text, and no other has one");
}

fn keys(page: &mut Page) {
    for error in [KeyError::NotAKey, KeyError::Encrypted, KeyError::Sec1, KeyError::Short, KeyError::Kind] {
        page.tell(&error, Some(error.hint(Some("client.pem"))));
    }
}

fn config(page: &mut Page) {
    let read = |errno| ConfigError::Read { path: path(), source: os(errno) };
    for error in [
        ConfigError::NoHome,
        ConfigError::Missing { path: path() },
        read(Errno::ACCESS),
        read(Errno::ISDIR),
        read(Errno::IO),
        ConfigError::Read { path: path(), source: io::ErrorKind::InvalidData.into() },
        ConfigError::Stranger { path: path(), uid: 4242 },
        ConfigError::Writable { path: path(), mode: 0o666 },
        ConfigError::Readable { path: path(), mode: 0o644 },
    ] {
        page.tell(&error, error.hint());
    }
}

fn files(page: &mut Page) {
    let place = |errno| PlaceError::Io { doing: "open the directory", path: path(), source: os(errno) };
    for error in [
        PlaceError::NoFileName { path: path() },
        PlaceError::MissingDirectory { path: "/home/u".into(), whole: path() },
        PlaceError::DanglingLink {
            link: path(),
            target: "/mnt/disk/token".into(),
            directory: "/mnt/disk".into(),
        },
        PlaceError::NotADirectory { path: path() },
        PlaceError::TooManyLinks { path: path() },
        PlaceError::NotAFile { path: path(), kind: "FIFO" },
        PlaceError::Stranger { path: path(), owner: 4_242_424 },
        PlaceError::OthersCanWrite { path: path(), mode: 0o777 },
        PlaceError::MountPoint { path: path() },
        place(Errno::NOTCONN),
    ] {
        page.tell(&error, error.hint());
    }
    let file = |step, errno| FileError::Io { step, path: path(), source: os(errno) };
    for error in [
        file(Step::Read, Errno::IO),
        file(Step::Open, Errno::MFILE),
        file(Step::Create, Errno::NAMETOOLONG),
        file(Step::Own, Errno::PERM),
        file(Step::Reserve, Errno::NOSPC),
        file(Step::Write, Errno::DQUOT),
        file(Step::Sync, Errno::STALE),
        file(Step::Replace, Errno::BUSY),
        file(Step::SyncDirectory, Errno::IO),
        file(Step::Remove, Errno::ROFS),
        FileError::AttributesLost { path: path(), wanted: "mode 0640".into(), found: "mode 0755".into() },
        FileError::Vanished { path: path() },
        FileError::NotAFile { path: path(), kind: "directory" },
        FileError::TooLong { path: path(), max: 1 << 20 },
    ] {
        page.tell(&error, error.hint());
    }
    for error in [
        PublishError::Unknown { what: "user", name: "nobdy".into() },
        PublishError::Lookup { what: "group", name: "staff".into(), source: os(Errno::TIMEDOUT) },
        PublishError::Place(PlaceError::NotADirectory { path: path() }),
        PublishError::File(FileError::Vanished { path: path() }),
    ] {
        page.tell(&error, error.hint());
    }
}

fn state(page: &mut Page) {
    let io = |errno| LockError::Io { doing: "lock", path: path(), source: os(errno) };
    for error in [
        LockError::Place(PlaceError::Stranger { path: path(), owner: 4_242_424 }),
        LockError::NotOurs { path: path(), owner: 4_242_424 },
        LockError::Busy { path: path() },
        LockError::Unsupported { path: path(), source: os(Errno::NOLCK) },
        LockError::Replaced { path: path() },
        LockError::Supervised { pid: Some(4242), stopped: false },
        LockError::Supervised { pid: Some(4242), stopped: true },
        LockError::Supervised { pid: None, stopped: false },
        io(Errno::ACCESS),
        io(Errno::ROFS),
        io(Errno::MFILE),
    ] {
        page.tell(&error, error.hint());
    }
    let source = serde_json::from_str::<u8>("x").unwrap_err();
    for error in [
        StateError::Lock(LockError::Replaced { path: path() }),
        StateError::File(FileError::Vanished { path: path() }),
        StateError::Newer { path: path(), found: 9 },
        StateError::Encode { account: "work".into(), source },
        StateError::TooLong { account: "work".into(), bytes: 1_234_567 },
        StateError::NotLocked { account: "work".into() },
        StateError::Seal { account: "work".into(), source: SealError::NoKey },
        StateError::Seal { account: "work".into(), source: SealError::WrongKey },
        StateError::Seal { account: "work".into(), source: SealError::Random },
        StateError::SeedTaken { account: "work".into(), owner: "mail".into() },
    ] {
        page.tell(&error, error.hint());
    }
}

fn secrets(page: &mut Page) {
    let key = "refresh_token";
    let file = |errno| SecretError::File { key, path: path(), source: os(errno) };
    let name = || "zg_token".to_owned();
    for error in [
        file(Errno::NOENT),
        file(Errno::ACCESS),
        file(Errno::IO),
        SecretError::Hang { key, path: path() },
        SecretError::Loose { key, path: path(), mode: 0o644 },
        SecretError::Stranger { key, path: path(), uid: 4242 },
        SecretError::Unset { key, name: name() },
        SecretError::NoCredentials { key, name: name() },
        SecretError::Credential { key, name: name(), source: os(Errno::NOENT) },
    ] {
        page.tell(&error, error.hint());
    }
    let unset = SecretError::Unset { key: "state_key", name: name() };
    for source in [
        SealedError::Read(os(Errno::NOENT)),
        SealedError::Read(os(Errno::ACCESS)),
        SealedError::NotSealed,
        SealedError::OtherPurpose { purpose: "client_secret of account work".into() },
        SealedError::NoKey,
        SealedError::WrongKey,
        SealedError::KeyUnread(Box::new(unset)),
        SealedError::Random,
        SealedError::NotAKey { name: "state_key", source: NotAKey },
    ] {
        page.told.insert(variant(&source));
        let error = SecretError::Sealed { key, path: path(), source };
        page.tell(&error, error.hint());
    }
    for flaw in
        [SecretFlaw::Empty, SecretFlaw::Lines, SecretFlaw::Control, SecretFlaw::NotAscii, SecretFlaw::NotText]
    {
        let error = SecretError::Unusable { key, place: "environment variable ZG".into(), flaw };
        page.told.insert(variant(&error));
        page.tell_of(&flaw, &error, error.hint());
    }
}

fn given(page: &mut Page) {
    let fault = TokenFault::TooLong { bytes: 17_000 };
    for error in [NewLoginError::Token { what: "refresh token", fault }, NewLoginError::Expired] {
        page.tell(&error, Some(error.hint().to_owned()));
    }
}

fn child_errors() -> [ChildError; 9] {
    [
        ChildError::Start(os(Errno::NOENT)),
        ChildError::Start(os(Errno::ACCESS)),
        ChildError::Start(os(Errno::NOEXEC)),
        ChildError::Start(os(Errno::AGAIN)),
        ChildError::Read(os(Errno::IO)),
        ChildError::Late(Duration::from_secs(10)),
        ChildError::Unkillable { after: Duration::from_secs(30), pid: 4242 },
        ChildError::Stopped,
        ChildError::TooLong(64 << 10),
    ]
}

fn children(page: &mut Page) {
    for error in [
        ProgramError::NotInPath("pass".into()),
        ProgramError::Missing(path()),
        ProgramError::Refused { path: path(), source: os(Errno::ACCESS) },
        ProgramError::Refused { path: path(), source: os(Errno::ISDIR) },
    ] {
        page.tell(&error, Some(error.hint()));
    }
    let status = ExitStatus::from_raw(2 << 8);
    for child in child_errors() {
        let name = variant(&child);
        let source = CommandError::Child(child);
        let error = SecretError::Command { key: "client_secret", program: "pass".into(), source };
        page.tell(&error, error.hint());
        page.told.extend([name, "CommandError::Child".into()]);
    }
    let source = CommandError::Failed { status, stderr: "gpg: no secret key".into() };
    page.told.insert(variant(&source));
    let error = SecretError::Command { key: "client_secret", program: "pass".into(), source };
    page.tell(&error, error.hint());
    let failed = HookError::Failed { hook: "on_refresh", status, stderr: String::new() };
    let ended = child_errors().map(|source| HookError::Child { hook: "on_failure", source });
    for error in ended.into_iter().chain([failed]) {
        page.tell(&error, Some(error.hint()));
    }
    let path = || PathBuf::from("/run/nginx.pid");
    let send = |errno: Errno| SignalError::Send { path: path(), pid: 7, source: errno.into() };
    for error in [
        SignalError::Missing { path: path() },
        SignalError::File(FileError::TooLong { path: path(), max: 1024 }),
        SignalError::NotAPid { path: path() },
        SignalError::Stranger { path: path(), mode: 0o666, owner: 0 },
        send(Errno::SRCH),
        send(Errno::PERM),
    ] {
        page.told.insert(variant(&error));
        let error = HookError::from(error);
        page.tell(&error, Some(error.hint()));
    }
}

fn network(page: &mut Page) {
    let url = |path: &str| format!("https://login.example/{path}").parse().unwrap();
    let reset = || TransportFailure {
        sent: Sent::PerhapsSent,
        kind: FailureKind::Reset,
        detail: "the server reset the connection".into(),
    };
    for error in [
        DiscoveryError::Issuer { issuer: "login.example".into(), reason: "it is not a valid URL" },
        DiscoveryError::Unreachable { url: url("a"), source: reset() },
    ] {
        page.tell(&error, error.hint());
    }
    for oauth in [
        DocumentError::Status(404),
        DocumentError::Status(503),
        DocumentError::NotADocument,
        DocumentError::Missing("token_endpoint"),
        DocumentError::OtherIssuer("https://other.example".into()),
        DocumentError::Insecure("http://login.example/token".into()),
    ] {
        page.told.insert(variant(&oauth));
        let openid = DocumentError::Status(404);
        let error = DiscoveryError::NoDocument { oauth_url: url("a"), oauth, openid_url: url("b"), openid };
        page.tell(&error, error.hint());
    }
    for error in [
        RootsError::Unreadable { path: path(), source: os(Errno::ACCESS) },
        RootsError::Empty { path: path() },
    ] {
        page.tell(&error, FailureKind::Roots.hint().map(str::to_owned));
    }
    for error in [
        PushError::Secret(SecretError::Unset { key: "push.api_key", name: "ZG_KEY".into() }),
        PushError::NoIdToken(NoIdToken),
        PushError::Transport(reset()),
        PushError::Status(401),
        PushError::Status(307),
        PushError::Status(500),
    ] {
        page.tell(&error, error.hint());
    }
}

fn fleet(page: &mut Page) {
    let place = || "db1, db2".to_owned();
    let fault = |code: &str, message: &str| DatabaseFault { code: code.into(), message: message.into() };
    let refused = |code, message| FleetError::Query { place: place(), source: fault(code, message) };
    for error in [
        FleetError::Url {
            what: "names no host".into(),
            hint: "write it as postgresql://USER@HOST/DATABASE".into(),
        },
        FleetError::NotAKey(NotAKey),
        FleetError::Roots { path: path(), source: fault("", "no usable certificate") },
        FleetError::Connect { place: place(), source: fault("", "Connection refused (os error 111)") },
        FleetError::Connect {
            place: place(),
            source: fault("28P01", "password authentication failed for user \"u\""),
        },
        FleetError::Connect { place: place(), source: fault("", "password missing") },
        FleetError::Connect { place: place(), source: fault("", "the server's certificate is not for db1") },
        FleetError::Timeout { place: place(), seconds: 10 },
        refused("55000", "recovery is in progress"),
        refused("42P01", "relation \"zg_tokend.login\" does not exist"),
        refused("42501", "permission denied for table login"),
        FleetError::Unreadable { what: "token" },
        FleetError::Column { what: "epoch" },
        refused("0A000", "cannot convert infinity to bigint"),
        FleetError::NoKey,
        FleetError::WrongKey,
        FleetError::Random,
    ] {
        page.tell(&error, Some(error.hint()));
    }
}

fn seals(page: &mut Page) {
    for error in [SealError::NoKey, SealError::WrongKey, SealError::Random] {
        page.tell(&error, Some(error.hint().into()));
    }
}

fn surroundings(page: &mut Page) {
    for error in [
        ControlError::InUse { path: path() },
        ControlError::NotASocket { path: path() },
        ControlError::Place(PlaceError::Stranger { path: path(), owner: 4_242_424 }),
        ControlError::OtherOwner { path: path(), owner: 4_242_424 },
        ControlError::WritableByOthers { path: path(), mode: 0o777 },
        ControlError::Create { path: path(), source: os(Errno::ACCESS) },
    ] {
        page.tell(&error, Some(error.hint()));
    }
    for error in [
        RunError::Supervise {
            account: "work".into(),
            source: LockError::Supervised { pid: Some(4242), stopped: false },
        },
        RunError::Setup(os(Errno::MFILE)),
        RunError::Hang { account: "work".into() },
        RunError::Listen { address: ([127, 0, 0, 1], 9464).into(), source: os(Errno::ADDRINUSE) },
    ] {
        page.tell(&error, error.hint());
    }
    let address = "127.0.0.1:8080".parse().unwrap();
    for error in [
        server::ServerError::Listen { address, source: os(Errno::ADDRINUSE) },
        server::ServerError::Random { source: getrandom::Error::UNSUPPORTED },
        server::ServerError::Thread { source: os(Errno::AGAIN) },
    ] {
        page.tell(&error, Some(error.hint()));
    }
    for error in [
        DemoError::Setup(os(Errno::MFILE)),
        DemoError::Server(server::ServerError::Listen { address, source: os(Errno::ADDRINUSE) }),
        DemoError::Directory(os(Errno::NOSPC)),
        DemoError::Config(ConfigError::NoHome),
        DemoError::Supervise(RunError::Setup(os(Errno::MFILE))),
        DemoError::Crash,
    ] {
        page.tell(&error, error.hint());
    }
}

fn init(page: &mut Page) {
    for error in [
        AdditionError::Inline,
        AdditionError::Changed("work".parse().unwrap()),
        AdditionError::Config(ConfigError::NoHome),
    ] {
        page.tell(&error, error.hint());
    }
    for error in [
        GoogleError::Read { path: path(), source: os(Errno::NOENT) },
        GoogleError::NotJson(path()),
        GoogleError::OtherType(path()),
        GoogleError::Lacks { path: path(), what: "client_id" },
    ] {
        page.tell(&error, Some(error.hint()));
    }
    for error in [
        ReplaceError::Edited(path()),
        ReplaceError::Place(PlaceError::NotADirectory { path: path() }),
        ReplaceError::File(FileError::Vanished { path: path() }),
    ] {
        page.tell(&error, error.hint());
    }
    for error in [
        InitError::Missing("--client-id".into()),
        InitError::Answer("there was no answer".into()),
        InitError::Config { message: "`client_id` is empty".into(), hint: None },
        InitError::Google(GoogleError::NotJson(path())),
        InitError::Exists(path()),
        InitError::Unanswered("no answer".into()),
        InitError::Known("work".into()),
        InitError::Existing(ConfigError::NoHome),
        InitError::Edit(AdditionError::Inline),
        InitError::NotConfirmed,
        InitError::Replace(ReplaceError::Edited(path())),
        InitError::Place(PlaceError::NotADirectory { path: path() }),
        InitError::File(FileError::Vanished { path: path() }),
    ] {
        page.tell(&error, error.hint());
    }
}
