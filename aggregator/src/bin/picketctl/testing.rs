//! An aggregator played by a list of answers.

use picket_aggregator::client::{CONNECT_TIMEOUT, Client, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A client of a server that gives `answers` (`None`: hears and says nothing), one a connection, and then is gone.
pub async fn client(answers: Vec<Option<(u16, String)>>) -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = [0; 4096];
            assert!(stream.read(&mut heard).await.unwrap() > 0);
            if let Some((status, body)) = answer {
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        }
    };
    tokio::spawn(serving);
    Client::new("test", &Target { url, ca_pem: None, token: None, connect_within: CONNECT_TIMEOUT }).unwrap()
}
