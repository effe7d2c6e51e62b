//! Clients that are slow, silent, numerous, without an end, or strangers.

use super::*;

/// Connects 64 times, and stays.
const CROWD: &str = "import signal, socket, sys\n\
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(64)]\n\
    for each in crowd: each.connect(sys.argv[1])\n\
    print('connected', flush=True)\n\
    signal.pause()";

/// Clients of every bad sort at once, while tokens live eight seconds.
#[test]
fn hostile_clients_delay_no_refresh() {
    let world = World::in_memory(8);
    world.configure("");
    let mut run = world.run();
    let calm = gaps_between_grants(&world, 2);
    let (over, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    let path = socket(&world);
    let siege = thread::scope(|scope| {
        // Half-open, and more of them than are accepted.
        scope.spawn(|| {
            let mut open = Vec::new();
            while !over.load(Ordering::Relaxed) {
                // The kernel's queue is full, too: the rest has to wait.
                if open.len() < 1000
                    && let Ok(stream) = connect(&path)
                {
                    let mut stream: UnixStream = stream;
                    let _ = stream.write_all(b"POST /v1/token HTTP/1.1\r\nhost: x\r\n");
                    open.push(stream);
                    opened.store(open.len(), Ordering::Relaxed);
                } else {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        // Bodies without end.
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let Ok(mut stream) = connect(&path) else { continue };
                    let head = "POST /v1/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                                transfer-encoding: chunked\r\n\r\n";
                    let mut sent = stream.write_all(head.as_bytes());
                    while sent.is_ok() && !over.load(Ordering::Relaxed) {
                        sent = stream.write_all(format!("400\r\n{}\r\n", "x".repeat(1024)).as_bytes());
                    }
                }
            });
        }
        // And one that reads the token file as fast as it can.
        let reader = scope.spawn(|| {
            let mut reads = 0_u64;
            while !over.load(Ordering::Relaxed) {
                world.assert_live();
                reads += 1;
            }
            reads
        });
        let siege = gaps_between_grants(&world, 5);
        over.store(true, Ordering::Relaxed);
        let reads = reader.join().unwrap();
        assert!(reads > 0);
        figure(format!("{reads} reads of tokens that live 8 s, none dead"));
        siege
    });
    let opened = opened.into_inner();
    assert!(opened > 64, "{opened} connections are no siege");
    figure(format!(
        "longest time between refreshes of 8 s tokens: {calm} ms in peace, {siege} ms under siege by {opened} half-open \
         connections"
    ));
    assert_stops(&mut run);
    audit::assert_one_post_per_epoch(&world.server.audit());
}

fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    Ok(stream)
}

/// The longest time between so many grants, in milliseconds.
fn gaps_between_grants(world: &World, count: usize) -> i64 {
    let (mut last, mut longest) = (None, 0);
    for _ in 0..=count {
        let before = world.grants();
        wait_until("a refresh", || (world.grants() > before).then_some(()));
        let now = monotonic();
        longest = longest.max(last.map_or(0, |last| now - last));
        last = Some(now);
    }
    longest
}

#[test]
fn limits_hold_and_the_others_are_served_all_the_same() {
    let (world, mut run) = supervised(3600);
    let body = format!(r#"{{"access_token": "{}"}}"#, "x".repeat(70_000));
    let file = world.sandbox.path("large");
    fs::write(&file, body).unwrap();
    let data = format!("@{}", file.display());
    let reply = ask(&world, "/v1/token", ["-H", "content-type: application/json", "--data-binary", &data]);
    assert_reply(&reply, 413, "error", "too_large");
    let mut stream = UnixStream::connect(socket(&world)).unwrap();
    let header = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(70_000));
    let _ = stream.write_all(header.as_bytes());
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    assert!(reply.starts_with("HTTP/1.1 431"), "{reply}");
    // A connection is one request.
    let mut stream = UnixStream::connect(socket(&world)).unwrap();
    stream.write_all("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2).as_bytes()).unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    assert_eq!(replies.matches("HTTP/1.1 ").count(), 1, "{replies}");
    assert_stops(&mut run);
}

/// How many sockets a process has.
fn sockets(run: &Background) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", run.id())).unwrap();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// The same once the connections of earlier requests are closed.
fn sockets_at_rest(run: &Background) -> usize {
    settled(Duration::from_millis(500), || sockets(run))
}

/// So many connections are accepted together, and each has 10 s.
const PLACES: usize = 64;

/// Clients in each stage of a request that never ends: none takes a place for long, and the rest
/// has to wait.
#[test]
fn half_open_clients_lose_their_places() {
    let (world, mut run) = supervised(3600);
    let before = sockets_at_rest(&run);
    let stages = ["", "POST /v1/to", "POST /v1/token HTTP/1.1\r\nhost: x\r\n", BODY_BEGUN];
    // As many again wait in the kernel's queue.
    let open: Vec<_> = (0..PLACES * 3 / 2)
        .map(|number| {
            let mut stream = UnixStream::connect(socket(&world)).unwrap();
            stream.write_all(stages[number % stages.len()].as_bytes()).unwrap();
            stream
        })
        .collect();
    wait_until("all places taken", || (sockets(&run) >= before + PLACES).then_some(()));
    let asked_at = monotonic();
    thread::scope(|scope| {
        let served = scope.spawn(|| ask(&world, "/healthz", []));
        while !served.is_finished() {
            assert!(sockets(&run) <= before + PLACES, "more than there are places for");
            thread::sleep(Duration::from_millis(5));
        }
        assert_reply(&served.join().unwrap(), 200, "status", "ok");
    });
    figure(format!("{} half-open clients hold a request up for {} ms", open.len(), monotonic() - asked_at));
    wait_until("all places free", || (sockets(&run) == before).then_some(()));
    drop(open);
    assert_stops(&mut run);
}

const BODY_BEGUN: &str = "POST /v1/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                          content-length: 100\r\n\r\n{";

/// A client that asks and does not read the answer loses its place as well. The answer is larger
/// than the kernel's buffers.
#[test]
fn clients_that_do_not_read_lose_their_places() {
    let world = World::new();
    let accounts = (0..600).map(|number| {
        let path = world.token_file_of(&number.to_string());
        format!("[accounts.a{number}]\ntoken_file = \"{}\"\n", path.display())
    });
    let accounts: String = accounts.collect();
    world.sandbox.write_config(&format!("{}{accounts}", world.client()));
    let mut run = world.run();
    let size = metrics(&world).len();
    assert!(size > 400_000, "{size} bytes are no challenge");
    let before = sockets_at_rest(&run);
    let deaf: Vec<_> = (0..PLACES)
        .map(|_| {
            let mut stream = UnixStream::connect(socket(&world)).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    wait_until("all places taken", || (sockets(&run) == before + PLACES).then_some(()));
    assert_reply(&ask(&world, "/healthz", []), 200, "status", "ok");
    drop(deaf);
    assert_stops(&mut run);
}

#[test]
fn another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        leave_out("another user at the control socket, which takes root");
        return;
    }
    let (world, mut run) = supervised(3600);
    let client = |path: &Path| {
        let nobody =
            ["--reuid=65534", "--regid=65534", "--clear-groups", "curl", "-q", "-sS", "--max-time", "10"];
        let url = "http://localhost/v1/token/status";
        let args = ["-w", "%{http_code}", "--unix-socket", path.to_str().unwrap(), url];
        finish(Command::new("setpriv").args(nobody).args(args))
    };
    assert_ne!(client(&socket(&world)).code, Some(0), "the modes keep him out");
    // Were they all lost, his user id still would.
    for path in socket(&world).ancestors().take_while(|path| path.starts_with(world.sandbox.path(""))) {
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
    for _ in 0..20 {
        let output = client(&socket(&world));
        assert_eq!(output.code, Some(0), "he is told so, each time: {output:?}");
        assert!(output.stdout.contains("forbidden") && output.stdout.ends_with("403"), "{output:?}");
    }
    // A client that stays all the same loses its place.
    let before = sockets_at_rest(&run);
    let mut crowd = Command::new("setpriv");
    crowd.args(["--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", CROWD]);
    let mut crowd = Background::start(crowd.arg(socket(&world)), world.sandbox.path("crowd.log"));
    crowd.wait_for("connected");
    wait_until("all places free", || (sockets(&run) == before).then_some(()));
    crowd.stop();
    assert_reply(&ask(&world, "/healthz", []), 200, "status", "ok");
    assert_stops(&mut run);
}
