//! The HTTP clients of all pushes. Pushes share them, so that a thousand targets read the root
//! certificates once, and the number of exchanges at the same time is limited.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use crate::http::{HttpEndpoint, HttpOptions};

/// Exchanges at the same time with one host and port: a target is one small server, and a thousand
/// accounts may get new tokens in one second.
const PLACES_PER_HOST: usize = 16;

#[derive(Default)]
pub struct Clients {
    /// While anything is sent.
    endpoints: RefCell<HashMap<HttpOptions, Arc<HttpEndpoint>>>,
    /// The places of each host and port, while anything is sent.
    hosts: RefCell<HashMap<String, Arc<Semaphore>>>,
    /// Pushes that send or wait for a place.
    sending: Cell<usize>,
}

/// A push on its way.
pub struct Sending(Rc<Clients>);

impl Clients {
    pub fn begin(self: &Rc<Self>) -> Sending {
        self.sending.set(self.sending.get() + 1);
        Sending(Rc::clone(self))
    }
}

impl Sending {
    /// The client with these options. All pushes share it.
    pub fn endpoint(&self, options: HttpOptions) -> Arc<HttpEndpoint> {
        let mut endpoints = self.0.endpoints.borrow_mut();
        let new = |options: &HttpOptions| Arc::new(HttpEndpoint::new(options.clone()));
        Arc::clone(endpoints.entry(options).or_insert_with_key(new))
    }

    /// Waits for a place, which is free again when the result is dropped. A target that does not answer
    /// delays only what goes to its own host and port.
    pub async fn place(&self, url: &Url) -> Option<OwnedSemaphorePermit> {
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default());
        let host = format!("{host}:{}", port.unwrap_or_default());
        let new = || Arc::new(Semaphore::new(PLACES_PER_HOST));
        let places = Arc::clone(self.0.hosts.borrow_mut().entry(host).or_insert_with(new));
        // Never closed, so never None.
        places.acquire_owned().await.ok()
    }
}

/// The last one drops the clients with their root certificates: an idle process keeps none, and the next
/// push reads a changed `ca_file`.
impl Drop for Sending {
    fn drop(&mut self) {
        let sending = self.0.sending.get() - 1;
        self.0.sending.set(sending);
        if sending == 0 {
            self.0.endpoints.take();
            self.0.hosts.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;
    use tokio::task::yield_now;

    use crate::push::clients::*;

    #[test]
    fn a_target_that_never_answers_delays_no_other_and_nothing_is_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let clients = Rc::new(Clients::default());
            let [silent, well] = ["http://localhost:1/", "http://localhost:2/"];
            let [silent, well]: [Url; 2] = [silent, well].map(|url| url.parse().unwrap());
            let (mut places, first) = (Vec::new(), clients.begin());
            for _ in 0..PLACES_PER_HOST {
                places.push(first.place(&silent).await);
            }
            let next = || {
                let (sending, url) = (clients.begin(), silent.clone());
                tokio::task::spawn_local(async move { sending.place(&url).await })
            };
            let options = || HttpOptions { allow_http: true, ..HttpOptions::default() };
            let (waiting, other) = (next(), clients.begin());
            assert!(other.place(&well).await.is_some());
            assert!(Arc::ptr_eq(&other.endpoint(options()), &first.endpoint(options())));
            yield_now().await;
            assert!(!waiting.is_finished(), "one more exchange with one host");
            places.pop();
            places.push(waiting.await.unwrap());
            // A push that is given up while it waits leaves nothing behind.
            let waiting = next();
            yield_now().await;
            waiting.abort();
            assert!(waiting.await.is_err());
            drop((first, other));
            assert_eq!((clients.sending.get(), clients.endpoints.borrow().len()), (0, 0));
            assert!(clients.hosts.borrow().is_empty());
        });
    }
}
