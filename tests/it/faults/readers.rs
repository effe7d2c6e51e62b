//! Readers that stand still: of the log, of the service manager's socket.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::common::world::World;
use crate::common::{Background, wait_until};

/// Both ends of a pipe that has no room left.
fn full_pipe() -> (File, File) {
    let (reader, writer) = std::io::pipe().unwrap();
    let (reader, mut writer) = (File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer)));
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

/// It refreshes tokens of eight seconds, answers `status`, and ends on SIGTERM.
fn assert_works(world: &World, mut command: Command) {
    let mut run = command.spawn().unwrap();
    let before = world.grants();
    wait_until("three refreshes", || (world.grants() >= before + 3).then_some(()));
    world.assert_live();
    Command::new("kill").arg(run.id().to_string()).status().unwrap();
    let status = wait_until("the end", || run.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{status:?}");
}

#[test]
fn a_full_pipe_on_stderr_stops_nothing_and_is_reported_later() {
    let world = World::in_memory(8);
    world.configure("");
    let (mut reader, writer) = full_pipe();
    let mut command = world.sandbox.command(["run"]);
    command.stdout(Stdio::null()).stderr(writer);
    let mut run = command.spawn().unwrap();
    drop(command);
    wait_until("three refreshes", || (world.grants() >= 3).then_some(()));
    world.assert_live();
    // The reader comes back: it learns that it has missed something.
    let mut text = String::new();
    let mut chunk = [0; 4096];
    wait_until("the count of lost entries", || {
        let count = reader.read(&mut chunk).unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk[..count]));
        text.contains("log entries were lost").then_some(())
    });
    Command::new("kill").arg(run.id().to_string()).status().unwrap();
    let status = wait_until("the end", || {
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        while reader.read(&mut chunk).is_ok_and(|count| count > 0) {}
        run.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_pass_whose_warnings_nobody_reads_makes_its_exchange_and_ends() {
    let world = World::new();
    let secret = world.sandbox.path("secret");
    std::fs::write(&secret, world.seed().expose()).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    world.configure_inputs(&format!("refresh_token.file = \"{}\"", secret.display()));
    world.once_gives(0, []);
    // A warning before the request: the login in the state is used.
    std::fs::remove_file(&secret).unwrap();
    let said = world.once_gives(0, ["--force"]).stderr;
    assert!(said.contains("using the refresh token in the state"), "{said}");
    let (_reader, writer) = full_pipe();
    let mut command = world.sandbox.command(["once", "--force"]);
    command.stdout(Stdio::null()).stderr(writer);
    let mut once = command.spawn().unwrap();
    drop(command);
    let ended = wait_until("the end", || once.try_wait().unwrap());
    assert_eq!((ended.code(), world.grants()), (Some(0), 3));
    super::assert_login_lives(&world);
}

#[test]
fn a_socket_on_stderr_that_nobody_reads_stops_nothing() {
    let world = World::in_memory(8);
    world.configure("");
    let (_reader, writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    while (&writer).write(&[b'x'; 4096]).is_ok() {}
    writer.set_nonblocking(false).unwrap();
    let mut command = world.sandbox.command(["run"]);
    command.stdout(Stdio::null()).stderr(OwnedFd::from(writer));
    assert_works(&world, command);
}

#[test]
fn a_service_manager_that_does_not_read_stops_nothing_and_hears_ready_later() {
    let world = World::in_memory(8);
    world.configure("");
    let path = world.sandbox.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"x", &path).is_ok() {}
    let mut command = world.sandbox.command(["run"]);
    command.env("NOTIFY_SOCKET", &path);
    let mut run = Background::start(&mut command, world.sandbox.path("run.log"));
    wait_until("three refreshes", || (world.grants() >= 3).then_some(()));
    world.assert_live();
    let mut message = [0; 1024];
    wait_until("READY=1, now that somebody reads", || {
        let length = socket.recv(&mut message).unwrap();
        message[..length].starts_with(b"READY=1").then_some(())
    });
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0));
}
