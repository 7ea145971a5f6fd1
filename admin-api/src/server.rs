use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::auth::Tokens;
use crate::control::Control;
use crate::v1::{App, router};

/// The listener could not be opened, or its thread could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address could not be bound.
    #[error("admin listener {address}: {source}: choose another address in admin.listen")]
    Bind {
        /// The address wanted.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread or its runtime could not be started.
    #[error("admin thread: {0}")]
    Thread(std::io::Error),
}

/// The running admin listener. Stops when dropped.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl AdminServer {
    /// Returns the address really bound, which tells the port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Binds the admin listener and serves it from a thread of its own with a single-threaded runtime.
///
/// # Errors
/// When the address cannot be bound or the thread cannot be started.
pub fn serve<C: Control>(address: SocketAddr, tokens: Tokens, control: C) -> Result<AdminServer, ServeError> {
    let bind = |source| ServeError::Bind { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(bind)?;
    listener.set_nonblocking(true).map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Thread)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let app = Arc::new(App { control, tokens });
    let run = move || {
        runtime.block_on(async move {
            let listener = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!(%error, "admin listener lost"),
            };
            let server = axum::serve(listener, router(app));
            tokio::select! {
                ended = server => if let Err(error) = ended { tracing::error!(%error, "admin listener ended") },
                _ = stopped => {}
            }
        });
        runtime.shutdown_timeout(Duration::from_millis(200));
    };
    let thread = thread::Builder::new().name("admin".into()).spawn(run).map_err(ServeError::Thread)?;
    Ok(AdminServer { address: bound, stop: Some(stop), thread: Some(thread) })
}
