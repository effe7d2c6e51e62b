//! Threads for work that blocks: files, name lookups, children.
//!
//! A thread may not be had (`ulimit -u`, TasksMax=, pids.max): then the work runs on the caller's
//! own thread, late rather than never. Work may hang for ever (a frozen file system, a dead NFS
//! server): a thread that hangs does not count, so that the others' work finds another one.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::monotonic;

/// Threads that work on files at the same time: more of them wait for the same disk.
const FILE_THREADS: usize = 8;

/// Threads that look up names at the same time: more of them wait for the same name server.
const NAME_THREADS: usize = 8;

/// Threads that run programs of the user or read files that hold secrets at the same time. The 64 places
/// of one host may be taken by programs that are killed after 10 s: six more each second, which count
/// for two seconds. A host with such programs must leave threads to another.
const PROGRAM_THREADS: usize = 32;

/// Work that takes longer than this, in milliseconds, is held to hang: no disk that works needs so
/// long, and a queue behind it must not wait any longer.
const HANGS_AFTER: i64 = 2_000;

/// Threads that work on files and do not wait for the disk. Two keep the processors busy, and each thread leaves
/// 80 KiB of stack and heap behind: a start that only reads what is in memory needs no more.
const FIRST_FILE_THREADS: usize = 2;

/// Work that takes longer than this, in milliseconds, waits for the disk.
const WAITS_AFTER: i64 = 1;

/// How soon work that no thread has taken looks for one again. Later it does so seldom: every thread may hang.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_millis(HANGS_AFTER.unsigned_abs());

/// Threads at most, those that hang included: enough for every account on a dead file server, few
/// enough for any limit of threads that is meant seriously.
const THREADS_MAX: usize = 256;

/// How long a thread waits for more work: a refresh needs it again within milliseconds, and an idle
/// process should have one thread.
const IDLE: Duration = Duration::from_secs(1);

/// The stack of a thread. The deepest work resolves names, which glibc does within 64 KiB.
const STACK: usize = 512 * 1024;

/// Threads that look at many accounts at once: two processors are in use while others wait for a disk.
const LOOK_THREADS: usize = 4;

/// So many accounts are looked at by one thread in one go: fewer cost less than a thread that looks at them.
const LOOKS_AT_ONCE: usize = 32;

/// Does the work, and gives what delivers the result: the thread is idle by then, so that the next work
/// finds it.
type Work = Box<dyn FnOnce() -> ResultSender + Send>;
type ResultSender = Box<dyn FnOnce() + Send>;

static WORKERS: Workers = Workers {
    state: Mutex::new(WorkState {
        files: WorkQueue::new(FILE_THREADS, FIRST_FILE_THREADS),
        names: WorkQueue::new(NAME_THREADS, NAME_THREADS),
        programs: WorkQueue::new(PROGRAM_THREADS, PROGRAM_THREADS),
        idle: 0,
        refusal: None,
    }),
    work_came: Condvar::new(),
};

/// Each kind of work has a queue and limits of its own: a password manager that waits for its user must not
/// keep others from their files. The threads are the same: a refresh needs one kind after the other, and
/// each thread leaves memory behind.
#[derive(Clone, Copy)]
enum WorkKind {
    Files,
    Names,
    Programs,
}

struct Workers {
    state: Mutex<WorkState>,
    work_came: Condvar,
}

struct WorkState {
    files: WorkQueue,
    names: WorkQueue,
    programs: WorkQueue,
    /// Threads that wait for work.
    idle: usize,
    /// Why the kernel refused a thread, until [`take_refusal`].
    refusal: Option<io::Error>,
}

/// Work of one kind.
struct WorkQueue {
    /// Threads that may work on it at the same time.
    threads: usize,
    /// A new thread is made only while fewer than these work and do not wait.
    first_threads: usize,
    waiting: VecDeque<Arc<Mutex<Option<Work>>>>,
    /// When each thread that works on it began, by [`monotonic`].
    busy_since: Vec<i64>,
}

impl WorkQueue {
    const fn new(threads: usize, first_threads: usize) -> Self {
        Self { threads, first_threads, waiting: VecDeque::new(), busy_since: Vec::new() }
    }

    /// How much of the work a thread may take now.
    fn takeable(&self) -> usize {
        if self.waiting.is_empty() {
            return 0;
        }
        let free = self.threads.saturating_sub(self.working(HANGS_AFTER));
        free.min(THREADS_MAX.saturating_sub(self.busy_since.len())).min(self.waiting.len())
    }

    /// Threads whose work began less than `time` milliseconds ago.
    fn working(&self, time: i64) -> usize {
        let before = monotonic() - time;
        self.busy_since.iter().filter(|since| **since > before).count()
    }

    fn remove(&mut self, began: i64) {
        if let Some(place) = self.busy_since.iter().position(|since| *since == began) {
            self.busy_since.swap_remove(place);
        }
    }
}

impl WorkState {
    fn queue(&mut self, kind: WorkKind) -> &mut WorkQueue {
        match kind {
            WorkKind::Files => &mut self.files,
            WorkKind::Names => &mut self.names,
            WorkKind::Programs => &mut self.programs,
        }
    }

    /// Whether one more thread may be made for this kind. An idle thread takes work before it waits, so it
    /// counts.
    fn needs_thread(&mut self, kind: WorkKind) -> bool {
        let takeable = [&self.files, &self.names, &self.programs].map(WorkQueue::takeable);
        let idle = self.idle;
        let queue = self.queue(kind);
        takeable.iter().sum::<usize>() > idle
            && queue.takeable() > 0
            && queue.working(WAITS_AFTER) + idle < queue.first_threads
    }

    /// The kind of a thread's next work: the same as its last, while there is work of that kind.
    fn next(&mut self, kind: WorkKind) -> Option<WorkKind> {
        let kinds = [kind, WorkKind::Files, WorkKind::Names, WorkKind::Programs];
        kinds.into_iter().find(|kind| self.queue(*kind).takeable() > 0)
    }
}

/// Runs work on files on a thread and waits for its result without blocking.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    run_on(WorkKind::Files, work).await
}

/// The same for the lookup of a name.
pub async fn run_lookup<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    run_on(WorkKind::Names, work).await
}

/// The same for a program of the user.
pub async fn run_program<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    run_on(WorkKind::Programs, work).await
}

async fn run_on<T: Send + 'static>(kind: WorkKind, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, mut receive) = oneshot::channel();
    let work: Work = Box::new(move || {
        let result = work();
        Box::new(move || {
            // A caller that was dropped has no use for it.
            let _ = send.send(result);
        })
    });
    let slot = Arc::new(Mutex::new(Some(work)));
    WORKERS.lock().queue(kind).waiting.push_back(Arc::clone(&slot));
    let mut look = FIRST_LOOK;
    loop {
        if !WORKERS.offer_thread(kind)
            && let Some(work) = take(&slot)
        {
            WORKERS.lock().queue(kind).waiting.retain(|queued| !Arc::ptr_eq(queued, &slot));
            work()();
        }
        tokio::select! {
            biased;
            result = &mut receive => match result {
                Ok(result) => return result,
                // The work panicked, which ends the process: nothing follows.
                Err(_) => std::future::pending().await,
            },
            () = tokio::time::sleep(look) => look = LAST_LOOK.min(2 * look),
        }
    }
}

/// Runs work on a file that may be of another file system than all else; `None` if it takes longer than
/// `time`. Until that work ends, no more is begun on this path: each would take a thread that does not
/// come back.
pub async fn run_within<T: Send + 'static>(
    path: &Path,
    time: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    static HUNG: Mutex<BTreeMap<PathBuf, Arc<AtomicBool>>> = Mutex::new(BTreeMap::new());
    let hung = || HUNG.lock().unwrap_or_else(PoisonError::into_inner);
    if hung().get(path).is_some_and(|ended| !ended.load(Ordering::Acquire)) {
        return None;
    }
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let work = run_on(WorkKind::Programs, move || {
        let result = work();
        end.store(true, Ordering::Release);
        result
    });
    let result = tokio::time::timeout(time, work).await.ok();
    if result.is_none() {
        hung().insert(path.to_owned(), ended);
    }
    result
}

/// Does the same work for each item; the results are in the order of the items. Few items are left to the
/// caller's own thread, and so are all where no other can be had.
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let pieces: Vec<_> = items.chunks(LOOKS_AT_ONCE).collect();
    let next = AtomicUsize::new(0);
    let part = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = pieces.get(place) else { return done };
            done.push((place, piece.iter().map(&work).collect::<Vec<_>>()));
        }
    };
    let mut done = thread::scope(|scope| {
        let builder = || thread::Builder::new().name("worker".into()).stack_size(STACK);
        let threads =
            (1..LOOK_THREADS.min(pieces.len())).map_while(|_| builder().spawn_scoped(scope, part).ok());
        let threads: Vec<_> = threads.collect();
        let mut done = part();
        // A panic ends the process.
        done.extend(threads.into_iter().filter_map(|thread| thread.join().ok()).flatten());
        done
    });
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

/// Why the kernel refused a thread since the last call, for the log: the work was done all the same.
pub fn take_refusal() -> Option<io::Error> {
    WORKERS.lock().refusal.take()
}

fn take(slot: &Mutex<Option<Work>>) -> Option<Work> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, WorkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that a thread takes the work in the queue. False if there is none and none can be
    /// made.
    fn offer_thread(&'static self, kind: WorkKind) -> bool {
        let mut state = self.lock();
        if !state.needs_thread(kind) {
            self.work_came.notify_one();
            return true;
        }
        let began = monotonic();
        state.queue(kind).busy_since.push(began);
        drop(state);
        let thread = thread::Builder::new().name("worker".into()).stack_size(STACK);
        let Err(error) = thread.spawn(move || self.work(kind, began)) else { return true };
        let mut state = self.lock();
        state.refusal = Some(error);
        state.queue(kind).remove(began);
        state.idle > 0 || state.queue(kind).working(HANGS_AFTER) > 0
    }

    /// The life of a thread: it works until there is no more work.
    fn work(&'static self, mut kind: WorkKind, mut began: i64) {
        let mut state = self.lock();
        loop {
            let slot = state.queue(kind).waiting.pop_front();
            drop(state);
            let delivery = slot.and_then(|slot| take(&slot)).map(|work| work());
            let has_waited = monotonic() - began > WAITS_AFTER;
            state = self.lock();
            state.queue(kind).remove(began);
            state.idle += 1;
            if let Some(deliver) = delivery {
                drop(state);
                deliver();
                state = self.lock();
            }
            kind = loop {
                if let Some(next) = state.next(kind) {
                    break next;
                }
                let (woken, timeout) =
                    self.work_came.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                if timeout.timed_out() && state.next(kind).is_none() {
                    state.idle -= 1;
                    return;
                }
            };
            state.idle -= 1;
            began = monotonic();
            state.queue(kind).busy_since.push(began);
            // One of the queue is for this thread.
            if has_waited && state.queue(kind).waiting.len() > 1 {
                drop(state);
                self.offer_thread(kind);
                state = self.lock();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use crate::workers::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn work_returns_its_result() {
        let sum = runtime().block_on(async {
            let tasks: Vec<_> = (0..100).map(|number| run(move || number)).collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await;
            }
            sum
        });
        assert_eq!(sum, 4950);
    }

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for count in [0, 1, LOOKS_AT_ONCE, LOOKS_AT_ONCE + 1, 1000] {
            let items: Vec<_> = (0..count).collect();
            let doubled: Vec<_> = items.iter().map(|number| 2 * number).collect();
            assert_eq!(map(&items, |number| 2 * number), doubled);
        }
    }

    #[test]
    fn many_items_are_worked_on_at_the_same_time() {
        // Each thread stays until the other has come.
        let both = std::sync::Barrier::new(2);
        let items: Vec<_> = (0..2 * LOOKS_AT_ONCE).collect();
        map(&items, |number| number % LOOKS_AT_ONCE == 0 && both.wait().is_leader());
    }

    #[test]
    fn a_path_that_hangs_takes_one_thread_alone() {
        let (path, short) = (Path::new("/hung/secret"), Duration::from_millis(50));
        let (release, hang) = mpsc::channel::<()>();
        runtime().block_on(async {
            assert_eq!(run_within(path, short, move || hang.recv().is_ok()).await, None);
            assert_eq!(run_within(path, Duration::from_secs(60), || true).await, None, "it still hangs");
            assert_eq!(run_within(Path::new("/well"), Duration::from_secs(60), || 7).await, Some(7));
            drop(release);
            while run_within(path, Duration::from_secs(60), || true).await.is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }

    #[test]
    fn work_that_hangs_leaves_a_thread_for_the_rest() {
        runtime().block_on(async {
            let (release, hang) = mpsc::channel::<()>();
            let hang = Arc::new(Mutex::new(hang));
            let local = tokio::task::LocalSet::new();
            local
                .run_until(async {
                    for _ in 0..2 * FILE_THREADS {
                        let hang = Arc::clone(&hang);
                        tokio::task::spawn_local(run(move || hang.lock().unwrap().recv().is_ok()));
                    }
                    tokio::task::yield_now().await;
                    assert_eq!(run(|| 7).await, 7);
                })
                .await;
            drop(release);
        });
    }

    #[test]
    fn programs_that_hang_take_no_thread_from_files_and_names() {
        runtime().block_on(async {
            let (release, hang) = mpsc::channel::<()>();
            let hang = Arc::new(Mutex::new(hang));
            let local = tokio::task::LocalSet::new();
            local
                .run_until(async {
                    // More than all threads of one kind: with these before it, nothing else would ever run.
                    for _ in 0..THREADS_MAX + 50 {
                        let hang = Arc::clone(&hang);
                        tokio::task::spawn_local(run_program(move || hang.lock().unwrap().recv().is_ok()));
                    }
                    tokio::task::yield_now().await;
                    assert_eq!((run(|| 7).await, run_lookup(|| 8).await), (7, 8));
                })
                .await;
            drop(release);
        });
    }
}
