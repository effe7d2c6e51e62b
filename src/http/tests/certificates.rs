//! The certificates of servers: trusted, or refused with their names and dates.

use std::cell::RefCell;
use std::rc::Rc;

use rustls::HandshakeKind;
use tokio::io::AsyncWriteExt as _;

use crate::http::proxy::ProxyVariables;
use crate::http::server::{Authority, Leaf, Server, read_request, reply};
use crate::http::tests::{AMPLE, GRANT, assert_failure, endpoint_with, local, request};
use crate::oauth::{FailureKind, Reply, Sent, TransportFailure};

async fn post_tls(leaf: Leaf, trusted: bool) -> Result<Reply, TransportFailure> {
    let (authority, dir) = (Authority::new("ours"), tempfile::tempdir().unwrap());
    let server = Server::answering_tls(&authority, leaf, &reply("200 OK", "", GRANT)).await;
    let ca_file = if trusted { authority } else { Authority::new("other") }.ca_file(&dir);
    let endpoint = endpoint_with(AMPLE, Some(ca_file), ProxyVariables::default());
    endpoint.post(&request(server.url("https"))).await
}

#[tokio::test]
async fn certificates_are_checked() {
    local(async {
        assert_eq!(post_tls(Leaf::For("127.0.0.1"), true).await.unwrap().body.as_slice(), GRANT.as_bytes());
        for (leaf, trusted, kind, expected) in [
            (Leaf::For("as.example"), true, FailureKind::Name, "is not for 127.0.0.1, but for as.example"),
            (
                Leaf::For("127.0.0.1"),
                false,
                FailureKind::OtherAuthority,
                "from a certificate authority that is not trusted: ours",
            ),
            (Leaf::Expired, true, FailureKind::Validity, "expired: it was valid until 2001-01-01 00:00 UTC"),
            (
                Leaf::NotValidYet,
                true,
                FailureKind::Validity,
                "is not valid yet: it begins at 4000-01-01 00:00 UTC",
            ),
        ] {
            let detail = assert_failure(post_tls(leaf, trusted).await, Sent::NotSent, kind);
            assert!(detail.contains(expected), "{detail}");
        }
    })
    .await;
}

/// `openssl req -x509` makes such certificates: self-signed, and that of an authority.
#[tokio::test]
async fn a_certificate_in_ca_file_is_taken_as_it_is() {
    local(async {
        let dir = tempfile::tempdir().unwrap();
        for (leaf, expected) in [
            (Leaf::For("127.0.0.1"), None),
            (Leaf::For("as.example"), Some((FailureKind::Name, "is not for 127.0.0.1, but for as.example"))),
            (Leaf::Expired, Some((FailureKind::Validity, "it was valid until 2001-01-01"))),
            (Leaf::NotValidYet, Some((FailureKind::Validity, "it begins at 4000-01-01"))),
        ] {
            let own = Authority::of_itself("127.0.0.1", leaf);
            let server = Server::answering_tls(&own, leaf, &reply("200 OK", "", GRANT)).await;
            let endpoint = endpoint_with(AMPLE, Some(own.ca_file(&dir)), ProxyVariables::default());
            let result = endpoint.post(&request(server.url("https"))).await;
            match expected {
                None => assert_eq!(result.unwrap().status, 200),
                Some((kind, words)) => {
                    let detail = assert_failure(result, Sent::NotSent, kind);
                    assert!(detail.contains(words), "{detail}");
                }
            }
        }
        // Another one of the same name is another one.
        let own = Authority::of_itself("127.0.0.1", Leaf::For("127.0.0.1"));
        let ca_file = Authority::of_itself("127.0.0.1", Leaf::For("127.0.0.1")).ca_file(&dir);
        let server = Server::answering_tls(&own, Leaf::For("127.0.0.1"), &reply("200 OK", "", GRANT)).await;
        let endpoint = endpoint_with(AMPLE, Some(ca_file), ProxyVariables::default());
        let result = endpoint.post(&request(server.url("https"))).await;
        let detail = assert_failure(result, Sent::NotSent, FailureKind::OtherAuthority);
        assert_eq!(detail, "the server's certificate (127.0.0.1) is self-signed and not trusted");
    })
    .await;
}

#[tokio::test]
async fn sessions_are_resumed_until_a_handshake_fails() {
    local(async {
        let (authority, dir) = (Authority::new("ours"), tempfile::tempdir().unwrap());
        let (acceptor, kinds) =
            (authority.acceptor(Leaf::For("127.0.0.1")), Rc::new(RefCell::new(Vec::new())));
        let seen = Rc::clone(&kinds);
        let server = Server::start(async move |stream| {
            if seen.borrow().len() == 2 {
                // A server that cannot bear the ticket.
                seen.borrow_mut().push(None);
                return;
            }
            let mut stream = acceptor.accept(stream).await.unwrap();
            seen.borrow_mut().push(stream.get_ref().1.handshake_kind());
            read_request(&mut stream).await;
            stream.write_all(reply("200 OK", "", GRANT).as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        })
        .await;
        let endpoint = endpoint_with(AMPLE, Some(authority.ca_file(&dir)), ProxyVariables::default());
        for is_good in [true, true, false, true, true] {
            let result = endpoint.post(&request(server.url("https"))).await;
            assert_eq!(result.is_ok(), is_good, "{result:?}");
        }
        let (full, resumed) = (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed));
        assert_eq!(*kinds.borrow(), [full, resumed, None, full, full]);
    })
    .await;
}
