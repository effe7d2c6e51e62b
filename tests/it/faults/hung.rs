//! One file system that hangs, and one child that cannot be killed: the others go on.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::common::world::World;
use crate::common::{Background, leave_out, wait_until};

/// A file system whose calls hang while a flag file exists.
const FUSE: &str = r"
import os, sys, time
from fusepy import FUSE, Operations
class Pass(Operations):
    def __init__(self, root): self.root = root
    def path(self, path): return self.root + path
    def __call__(self, op, *args):
        while os.path.exists(sys.argv[3]):
            open(sys.argv[3] + '.met', 'w').close()
            time.sleep(0.05)
        return super().__call__(op, *args)
    def getattr(self, path, fh=None):
        s = os.lstat(self.path(path))
        return {k: getattr(s, k) for k in ('st_atime','st_ctime','st_gid','st_mode','st_mtime','st_nlink','st_size','st_uid')}
    def readdir(self, path, fh): return ['.', '..'] + os.listdir(self.path(path))
    def create(self, path, mode, fi=None): return os.open(self.path(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    def open(self, path, flags): return os.open(self.path(path), flags & ~os.O_NOFOLLOW)
    def read(self, path, size, offset, fh): return os.pread(fh, size, offset)
    def write(self, path, data, offset, fh): return os.pwrite(fh, data, offset)
    def truncate(self, path, length, fh=None): os.truncate(self.path(path), length)
    def fsync(self, path, datasync, fh): os.fsync(fh)
    def fsyncdir(self, path, datasync, fh): return 0
    def release(self, path, fh): os.close(fh)
    def rename(self, old, new): os.rename(self.path(old), self.path(new))
    def mkdir(self, path, mode): os.mkdir(self.path(path), mode)
    def unlink(self, path): os.unlink(self.path(path))
    def chmod(self, path, mode): os.chmod(self.path(path), mode)
    def chown(self, path, uid, gid): os.chown(self.path(path), uid, gid)
    def utimens(self, path, times=None): os.utime(self.path(path), times)
    def statfs(self, path):
        s = os.statvfs(self.path(path))
        return {k: getattr(s, k) for k in ('f_bavail','f_bfree','f_blocks','f_bsize','f_favail','f_ffree','f_files','f_flag','f_frsize','f_namemax')}
FUSE(Pass(sys.argv[1]), sys.argv[2], foreground=True, nothreads=False, allow_other=False)
";

/// Longer than any test wants it, and than any test waits.
const LONGEST_HANG: Duration = Duration::from_secs(150);

/// A mounted file system that can hang; unmounted when this is dropped.
struct Hanging {
    server: Background,
    mountpoint: std::path::PathBuf,
    flag: std::path::PathBuf,
}

impl Hanging {
    fn mount(world: &World) -> Option<Self> {
        let fuse =
            Command::new("/usr/bin/python3").args(["-c", "import fusepy"]).stderr(Stdio::null()).status();
        if !fuse.is_ok_and(|status| status.success()) || !rustix::process::geteuid().is_root() {
            leave_out("a file system that hangs: python3-fusepy or root is missing");
            return None;
        }
        let (root, mountpoint) = (world.sandbox.path("backing"), world.sandbox.path("mounted"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&mountpoint).unwrap();
        let mut command = Command::new("/usr/bin/python3");
        let flag = world.sandbox.path("hang.flag");
        command.args(["-c", FUSE]).arg(&root).arg(&mountpoint).arg(&flag);
        let server = Background::start(&mut command, world.sandbox.path("fuse.log"));
        wait_until("the mount", || {
            fs::read_to_string("/proc/mounts").unwrap().contains(mountpoint.to_str().unwrap()).then_some(())
        });
        Some(Self { server, mountpoint, flag })
    }

    /// It goes on by itself after a while: a process whose thread hangs cannot be killed, and a test that
    /// fails waits for its end.
    fn hang(&self) {
        fs::write(&self.flag, "").unwrap();
        let flag = self.flag.clone();
        std::thread::spawn(move || {
            std::thread::sleep(LONGEST_HANG);
            let _ = fs::remove_file(flag);
        });
    }

    /// Waits until somebody hangs in it.
    fn wait_for_victim(&self) {
        let met = self.flag.with_extension("flag.met");
        wait_until("a call that hangs", || met.exists().then_some(()));
    }

    fn go_on(&self) {
        let _ = fs::remove_file(&self.flag);
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.go_on();
        let _ = Command::new("umount").arg("-l").arg(&self.mountpoint).status();
        self.server.signal(Signal::KILL);
    }
}

#[test]
fn a_token_file_that_hangs_stops_its_own_account_alone() {
    let world = World::with_lifetime(6);
    let Some(hanging) = Hanging::mount(&world) else { return };
    let file = hanging.mountpoint.join("token");
    let (seed, other) = (world.seed(), world.seed());
    world.sandbox.write_config(&format!(
        "{}[accounts.hung]\nrefresh_token = \"{}\"\ntoken_file = \"{}\"\n\
         [accounts.well]\nrefresh_token = \"{}\"\ntoken_file = \"{}\"\n",
        world.client(),
        seed.expose(),
        file.display(),
        other.expose(),
        world.token_file_of("well").display()
    ));
    let mut run = world.run();
    assert!(world.server.is_live(&crate::common::world::read(&file)));
    hanging.hang();
    // Several lives of a token: the other account never notices.
    let token = || fs::read_to_string(world.token_file_of("well")).unwrap();
    for round in 0..6 {
        if round == 3 {
            run.wait_for("does not answer");
            run.signal(Signal::HUP);
            run.wait_for("the new config is in use");
        }
        let before = token();
        wait_until("a refresh of the other account", || (token() != before).then_some(()));
        assert!(world.server.is_live(&zg_tokend::testing::secret::Secret::new(token())));
    }
    let status = world.sandbox.run(["status"]);
    assert!(status.stdout.contains("hung") && status.stdout.contains("does not answer"), "{status:?}");
    // The socket answers, and SIGTERM is heard while the file system hangs.
    let socket = world.sandbox.path("runtime/zg-tokend/control.sock");
    let health = crate::common::curl(["--unix-socket", socket.to_str().unwrap(), "http://localhost/healthz"]);
    assert!(health.status == 200 || health.status == 503, "{health:?}");
    // It comes back, and so does the account.
    hanging.go_on();
    wait_until("the account that hung", || {
        let token = fs::read_to_string(&file).ok()?;
        world.server.is_live(&zg_tokend::testing::secret::Secret::new(token)).then_some(())
    });
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

#[test]
fn a_secret_file_that_hangs_stops_its_own_account_alone() {
    let world = World::with_lifetime(6);
    let Some(hanging) = Hanging::mount(&world) else { return };
    let secret = hanging.mountpoint.join("secret");
    let (seed, other) = (world.seed(), world.seed());
    fs::write(hanging.mountpoint.with_file_name("backing").join("secret"), seed.expose()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(world.sandbox.path("backing/secret"), mode).unwrap();
    world.sandbox.write_config(&format!(
        "{}[accounts.hung]\nrefresh_token.file = \"{}\"\ntoken_file = \"{}\"\n\
         [accounts.well]\nrefresh_token = \"{}\"\ntoken_file = \"{}\"\n",
        world.client(),
        secret.display(),
        world.token_file_of("hung").display(),
        other.expose(),
        world.token_file_of("well").display()
    ));
    let mut run = world.run();
    assert!(world.server.is_live(&crate::common::world::read(&world.token_file_of("hung"))));
    hanging.hang();
    // The new config is used, although the file cannot be watched.
    run.signal(Signal::HUP);
    run.wait_for("the new config is in use");
    run.wait_for("secret: the file system does not answer");
    let token = || fs::read_to_string(world.token_file_of("well")).unwrap();
    for _ in 0..3 {
        let before = token();
        wait_until("a refresh of the other account", || (token() != before).then_some(()));
        assert!(world.reads_live(&world.token_file_of("well")));
    }
    // A pass says so as well, and goes on with the login in the state.
    let mut once = world.sandbox.command(["once", "--force"]);
    let mut once = Background::start(&mut once, world.sandbox.path("once.log"));
    once.wait_for("secret: the file system does not answer");
    run.signal(Signal::TERM);
    run.wait_for("stopping");
    // A process with a thread in the kernel cannot exit before that returns.
    hanging.go_on();
    assert_eq!(once.wait().code(), Some(0), "{}", once.log());
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

#[test]
fn a_name_server_that_hangs_stops_its_own_account_alone() {
    let world = World::with_lifetime(6);
    // It takes questions, and never answers. Each test process has another address.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = format!("127.53.{high}.{low}");
    let root = rustix::process::geteuid().is_root();
    let Some(server) = root.then(|| UdpSocket::bind((&*address, 53)).ok()).flatten() else {
        return leave_out("a name server that hangs: root or its port is missing");
    };
    server.set_read_timeout(Some(LONGEST_HANG)).unwrap();
    let resolver = format!("nameserver {address}\noptions timeout:30 attempts:5\n");
    fs::write(world.sandbox.path("resolv.conf"), resolver).unwrap();
    fs::write(world.sandbox.path("nsswitch.conf"), "hosts: files dns\n").unwrap();
    let endpoint = world.server.token_endpoint();
    world.sandbox.write_config(&format!(
        "{}allow_http = true\n\
         [accounts.hung]\nrefresh_token = \"{}\"\ntoken_file = \"{}\"\n\
         token_endpoint = \"{}\"\ntimeout = \"5s\"\n\
         [accounts.well]\nrefresh_token = \"{}\"\ntoken_file = \"{}\"\ntoken_endpoint = \"{}\"\n",
        world.client(),
        world.seed().expose(),
        world.token_file_of("hung").display(),
        endpoint.replace("127.0.0.1", "nowhere.example"),
        world.seed().expose(),
        world.token_file_of("well").display(),
        // A name as well, which is looked up in /etc/hosts.
        endpoint.replace("127.0.0.1", "localhost"),
    ));
    let script = format!(
        "mount --bind {} /etc/resolv.conf; mount --bind {} /etc/nsswitch.conf; exec \"$0\" \"$@\"",
        world.sandbox.path("resolv.conf").display(),
        world.sandbox.path("nsswitch.conf").display()
    );
    let namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", &script];
    let mut command = crate::common::under(namespace, &world.sandbox.command(["run"]));
    let mut run = Background::start(&mut command, world.sandbox.path("run.log"));
    let mut question = [0; 512];
    let length = server.recv(&mut question).unwrap();
    assert!(question[..length].windows(7).any(|part| part == b"nowhere"), "{}", run.log());
    // Several lives of a token: the other account never notices.
    let token = || fs::read_to_string(world.token_file_of("well")).unwrap_or_default();
    for _ in 0..3 {
        let before = token();
        wait_until("a refresh of the other account", || (token() != before).then_some(()));
        assert!(world.reads_live(&world.token_file_of("well")));
    }
    run.wait_for("hung: ");
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

#[test]
fn a_supervisor_ends_although_a_file_system_hangs() {
    let world = World::with_lifetime(6);
    let Some(hanging) = Hanging::mount(&world) else { return };
    let file = hanging.mountpoint.join("token");
    world.configure(&format!("token_file = \"{}\"", file.display()));
    let mut run = world.run();
    hanging.hang();
    run.wait_for("does not answer");
    run.signal(Signal::TERM);
    run.wait_for("stopping");
    run.wait_for("leaving");
    hanging.go_on();
    let status = run.wait();
    assert_eq!(status.code(), Some(74), "{}", run.log());
}

/// The note of a push is written while the file system of the state hangs: the loop goes on, hears
/// signals and answers its socket.
#[test]
fn a_push_whose_note_hangs_does_not_stop_the_loop() {
    let world = World::new();
    let Some(hanging) = Hanging::mount(&world) else { return };
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    world.configure(&format!(
        "state_dir = \"{}\"\npush = [{{ url = \"http://{}/\" }}]",
        hanging.mountpoint.join("state").display(),
        target.local_addr().unwrap()
    ));
    let mut run = world.run();
    let (connection, _) = target.accept().unwrap();
    let mut reader = BufReader::new(&connection);
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    hanging.hang();
    (&connection).write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    hanging.wait_for_victim();
    let socket = world.sandbox.path("runtime/zg-tokend/control.sock");
    let health = crate::common::curl(["--unix-socket", socket.to_str().unwrap(), "http://localhost/healthz"]);
    assert_eq!(health.status, 200, "{health:?}");
    run.signal(Signal::TERM);
    run.wait_for("stopping");
    hanging.go_on();
    assert_eq!(run.wait().code(), Some(0), "{}", run.log());
}

/// A program that becomes root and hangs: its parent, who is not root, cannot kill it.
fn unkillable(world: &World) -> Option<std::path::PathBuf> {
    let compiler = Command::new("cc").arg("--version").stdout(Stdio::null()).status();
    if !rustix::process::geteuid().is_root() || !compiler.is_ok_and(|status| status.success()) {
        leave_out("a child that cannot be killed: root or a C compiler is missing");
        return None;
    }
    let (source, program) = (world.sandbox.path("hang.c"), world.sandbox.path("hang"));
    fs::write(&source, "#include <unistd.h>\nint main(){setgid(0);setuid(0);sleep(300);}").unwrap();
    assert!(Command::new("cc").arg("-o").args([&program, &source]).status().unwrap().success());
    assert!(Command::new("chmod").arg("4755").arg(&program).status().unwrap().success());
    Some(program)
}

/// The command as a user who is not root, to whom the sandbox belongs now.
fn as_nobody(world: &World, arguments: &[&str]) -> Command {
    let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(world.sandbox.path("")).status();
    assert!(owned.unwrap().success());
    let root = Command::new("chown").arg("0:0").arg(world.sandbox.path("hang")).status();
    assert!(root.unwrap().success());
    let mode = Command::new("chmod").arg("4755").arg(world.sandbox.path("hang")).status();
    assert!(mode.unwrap().success());
    let command = world.sandbox.command(arguments.iter().copied());
    crate::common::under(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], &command)
}

#[test]
fn a_secret_command_that_cannot_be_killed_is_given_up() {
    let world = World::new();
    let Some(program) = unkillable(&world) else { return };
    world.configure_inputs(&format!("refresh_token.command = [\"{}\"]", program.display()));
    let output = crate::common::finish(&mut as_nobody(&world, &["once"]));
    let _ = Command::new("pkill").args(["-KILL", "-f", program.to_str().unwrap()]).status();
    assert_eq!(output.code, Some(69), "{output:?}");
    assert!(output.stderr.contains("cannot be killed"), "{output:?}");
}

#[test]
fn a_hook_that_cannot_be_killed_is_given_up() {
    let world = World::new();
    let Some(program) = unkillable(&world) else { return };
    world.configure(&format!("on_refresh = [\"{}\"]", program.display()));
    let output = crate::common::finish(&mut as_nobody(&world, &["once"]));
    let _ = Command::new("pkill").args(["-KILL", "-f", program.to_str().unwrap()]).status();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains("cannot be killed"), "{output:?}");
}
