//! A load balancer that knows nothing of its servers: connections go to them in turn.

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A balancer on a port of its own, gone when dropped.
pub(crate) struct Balancer {
    port: u16,
    accepting: JoinHandle<()>,
}

impl Balancer {
    /// Forwards to these addresses.
    pub(crate) async fn start(servers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = tokio::spawn(async move {
            for server in servers.iter().cycle() {
                let Ok((near, _)) = listener.accept().await else { return };
                tokio::spawn(carry(near, server.clone()));
            }
        });
        Self { port, accepting }
    }

    /// Where clients are pointed to.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Until either side ends it; a server that is away ends it at once.
async fn carry(mut near: TcpStream, server: String) {
    let Ok(mut far) = TcpStream::connect(server).await else { return };
    drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
}
