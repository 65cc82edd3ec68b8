//! A network that can fail: forwards to a server until connections are told to stall or to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Connections are numbered from 0.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// On those below, nothing passes any more, and nobody is told.
    stalled: u64,
    /// Those below have ended.
    cut: u64,
}

/// A proxy on a port of its own, gone when dropped.
pub(crate) struct Proxy {
    port: u16,
    next: Arc<AtomicU64>,
    faults: Arc<watch::Sender<Faults>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Forwards to a port of this machine.
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::new(watch::channel(Faults::default()).0);
        let next = Arc::new(AtomicU64::new(0));
        let (numbers, watched) = (Arc::clone(&next), Arc::clone(&faults));
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                let number = numbers.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(near, far, number, watched.subscribe()));
            }
        });
        Self { port, next, faults, accepting }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing passes on the connections there are, as if the other side had lost its
    /// power; new ones work.
    pub(crate) fn stall(&self) {
        let below = self.next.load(Ordering::SeqCst);
        self.faults.send_modify(|it| it.stalled = below);
    }

    /// Ends the connections there are; new ones work.
    pub(crate) fn cut(&self) {
        let below = self.next.load(Ordering::SeqCst);
        self.faults.send_modify(|it| it.cut = below);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn carry(
    mut near: TcpStream,
    mut far: TcpStream,
    number: u64,
    mut faults: watch::Receiver<Faults>,
) {
    let mut cut = faults.clone();
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
        _ = faults.wait_for(|it| number < it.stalled || number < it.cut) => {}
    }
    // the sockets stay open and nobody reads them
    drop(cut.wait_for(|it| number < it.cut).await);
}
