//! Interim answers, HTTP 1xx: a few are skipped, and a flood of them ends the exchange.

use std::cell::Cell;
use std::rc::Rc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http::server::{Server, read_request, reply};
use crate::http::tests::{AMPLE, GRANT, assert_failure, endpoint, local, post, request};
use crate::oauth::{FailureKind, Sent};

#[tokio::test]
async fn interim_answers_are_skipped() {
    local(async {
        let server = Server::start(async |mut stream: TcpStream| {
            read_request(&mut stream).await;
            let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
            stream.write_all(interim.repeat(20).as_bytes()).await.unwrap();
            stream.write_all(reply("200 OK", "", GRANT).as_bytes()).await.unwrap();
        })
        .await;
        assert_eq!(post(server.url("http")).await.unwrap().body.as_slice(), GRANT.as_bytes());
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_interim_answers_is_read_no_further_than_a_few() {
    const LEAST: usize = 101;
    for interim in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 102 Processing\r\nx: y\r\n\r\n"] {
        local(async move {
            // One at a time, so that the kernel's buffers do not hold a multitude.
            let sent = Rc::new(Cell::new(0));
            let count = Rc::clone(&sent);
            let server = Server::start(async move |mut stream: TcpStream| {
                read_request(&mut stream).await;
                stream.set_nodelay(true).unwrap();
                while stream.write_all(interim.as_bytes()).await.is_ok() {
                    count.set(count.get() + 1);
                    tokio::task::yield_now().await;
                }
            })
            .await;
            let result = endpoint(AMPLE).post(&request(server.url("http"))).await;
            let detail = assert_failure(result, Sent::PerhapsSent, FailureKind::Other);
            assert!(detail.contains("interim answers"), "{detail}");
            // The buffers of the kernel hold some thousands.
            let sent = sent.get();
            assert!((LEAST..1_000_000).contains(&sent), "{sent} interim answers");
        })
        .await;
    }
}
