//! Accounts that wait for their exchange. The account whose token expires first goes first, and a
//! server that does not answer delays only its own accounts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Exchanges at the same time with one host: enough to hide the network latency, few enough to save
/// memory and to spare the provider.
pub const PLACES_PER_HOST: usize = 64;

/// Exchanges at the same time: enough for several hosts that never answer.
const PLACES: usize = 8 * PLACES_PER_HOST;

/// The order: expiry of the token, then arrival.
type Rank = (i64, u64);

#[derive(Debug)]
pub struct Queue<T> {
    hosts: HashMap<String, Host<T>>,
    /// The first item of each host with a free place.
    ready: BTreeSet<(Rank, String)>,
    places: usize,
    /// Exchanges at the same time with one host that are not slow.
    quick_places: usize,
    arrivals: u64,
    len: usize,
}

#[derive(Debug)]
struct Host<T> {
    items: BTreeMap<Rank, T>,
    places: usize,
    quick_places: usize,
}

impl<T> Queue<T> {
    /// With one host, `quick_places` exchanges may run at the same time, and more beside those for which
    /// [`Queue::slow`] was called, up to [`PLACES_PER_HOST`].
    pub fn new(quick_places: usize) -> Self {
        let (hosts, ready) = (HashMap::new(), BTreeSet::new());
        Self { hosts, ready, places: PLACES, quick_places, arrivals: 0, len: 0 }
    }

    /// Adds an item; `ends_at` is the expiry of the account's token, on any clock.
    pub fn push(&mut self, host: &str, ends_at: i64, item: T) {
        let rank = (ends_at, self.arrivals);
        self.arrivals += 1;
        self.len += 1;
        self.change(host, |host| drop(host.items.insert(rank, item)));
    }

    /// Removes the most urgent item with a free place, and occupies the place until
    /// [`Queue::release`].
    pub fn pop(&mut self) -> Option<(String, T)> {
        if self.places == 0 {
            return None;
        }
        let (_, host) = self.ready.first()?.clone();
        let item = self.change(&host, |host| {
            host.places -= 1;
            host.quick_places -= 1;
            host.items.pop_first().map(|(_, item)| item)
        })?;
        self.places -= 1;
        self.len -= 1;
        Some((host, item))
    }

    /// Lets another item of this host run beside one that takes long, if there is a place.
    pub fn slow(&mut self, host: &str) {
        self.change(host, |host| host.quick_places += 1);
    }

    /// Frees the place of an item of this host; `is_slow`: [`Queue::slow`] was called for it.
    pub fn release(&mut self, host: &str, is_slow: bool) {
        self.places += 1;
        self.change(host, |host| {
            host.places += 1;
            host.quick_places += usize::from(!is_slow);
        });
        if self.hosts.get(host).is_some_and(|host| host.items.is_empty() && host.places == PLACES_PER_HOST) {
            self.hosts.remove(host);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn drain(&mut self) -> Vec<T> {
        self.ready.clear();
        self.len = 0;
        self.hosts.values_mut().flat_map(|host| std::mem::take(&mut host.items).into_values()).collect()
    }

    fn change<R>(&mut self, name: &str, change: impl FnOnce(&mut Host<T>) -> R) -> R {
        let host = self.hosts.entry(name.to_owned()).or_insert_with(|| Host {
            items: BTreeMap::new(),
            places: PLACES_PER_HOST,
            quick_places: self.quick_places,
        });
        let first = |host: &Host<T>| {
            let rank = host.items.first_key_value().map(|(rank, _)| *rank);
            rank.filter(|_| host.places > 0 && host.quick_places > 0).map(|rank| (rank, name.to_owned()))
        };
        if let Some(before) = first(host) {
            self.ready.remove(&before);
        }
        let result = change(host);
        self.ready.extend(first(host));
        result
    }
}

#[cfg(test)]
mod tests {
    use crate::account::queue::*;

    #[test]
    fn the_token_that_expires_first_goes_first() {
        let mut queue = Queue::new(PLACES_PER_HOST);
        for (host, ends_at) in [("a", 30), ("b", 10), ("a", 20), ("b", 10)] {
            queue.push(host, ends_at, ends_at);
        }
        let order = std::iter::from_fn(|| queue.pop()).map(|(_, ends_at)| ends_at);
        assert_eq!(order.collect::<Vec<_>>(), [10, 10, 20, 30]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_host_that_never_answers_delays_no_other() {
        let mut queue = Queue::new(PLACES_PER_HOST);
        for number in 0..1000 {
            queue.push("silent", number, "silent");
        }
        queue.push("well", 5000, "well");
        let taken: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect();
        assert_eq!(taken.iter().filter(|host| **host == "silent").count(), PLACES_PER_HOST);
        assert!(taken.contains(&"well"));
        queue.release("silent", false);
        assert!(queue.pop().is_some() && queue.pop().is_none());
    }

    #[test]
    fn beside_slow_exchanges_more_may_run() {
        let mut queue = Queue::new(16);
        for number in 0..1000 {
            queue.push("slow", number, ());
            queue.push("quick", number, ());
        }
        let taken = |queue: &mut Queue<()>| std::iter::from_fn(|| queue.pop()).count();
        assert_eq!(taken(&mut queue), 2 * 16);
        for _ in 0..16 {
            queue.slow("slow");
        }
        assert_eq!(taken(&mut queue), 16);
        queue.release("slow", true);
        queue.release("quick", false);
        assert_eq!(taken(&mut queue), 1, "a slow one has given its place back before");
        for _ in 0..64 {
            queue.slow("slow");
        }
        assert_eq!(taken(&mut queue), PLACES_PER_HOST - 31);
    }

    #[test]
    fn many_hosts_that_never_answer_use_no_more_than_all_places() {
        let mut queue = Queue::new(PLACES_PER_HOST);
        for number in 0..2000 {
            queue.push(&(number % 20).to_string(), 0, number);
        }
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), PLACES);
        assert_eq!(queue.drain().len(), 2000 - PLACES);
    }
}
