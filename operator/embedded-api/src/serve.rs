//! The API behind a listener: TLS on the loopback interface, or a unix socket; a bearer token on both.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::api::Api;
use crate::credentials::{Credentials, CredentialsError};
use crate::reply::{Body, Reply};
use crate::service::Service;
use crate::status::ApiError;

/// The largest set of request headers that is read, in bytes.
const HEADER_LIMIT: u32 = 64 * 1024;
/// How long a client may take to finish the TLS handshake.
const HANDSHAKE_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// TLS on a loopback address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// Plain HTTP on a unix socket that only its owner can open; a socket left behind is replaced.
    Unix(PathBuf),
}

/// Why the API can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is reachable from other machines.
    #[error(
        "listening on {0}: only loopback addresses are allowed; to share devices between machines use Kubernetes"
    )]
    NotLoopback(SocketAddr),
    /// The address can't be had.
    #[error("listening on {address}: check that no other server has it")]
    Bind {
        /// Address or path.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The credentials can't be had.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The certificate and key don't go together.
    #[error("setting up TLS; remove the credentials in the state directory, and new ones are made")]
    Tls(#[from] rustls::Error),
}

/// A running listener.
#[derive(Debug)]
pub struct Server {
    address: Option<SocketAddr>,
    kubeconfig: Option<PathBuf>,
    socket: Option<PathBuf>,
    stop: CancellationToken,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Listens and serves until `shutdown`. The CA, key and token are kept in `state_dir`, and so is, for TCP, the
    /// kubeconfig.
    ///
    /// # Errors
    /// Where the address is no loopback address or taken, or `state_dir` can't be written.
    pub async fn start(api: &Api, listen: Listen, state_dir: &Path) -> Result<Self, ServeError> {
        if let Listen::Tcp(address) = listen
            && !address.ip().is_loopback()
        {
            return Err(ServeError::NotLoopback(address));
        }
        let credentials = Credentials::open(state_dir)?;
        let guard =
            Guard { service: api.service(), expected: format!("Bearer {}", credentials.token).into() };
        let stop = CancellationToken::new();
        match listen {
            Listen::Tcp(address) => {
                let bind = |source| ServeError::Bind { address: address.to_string(), source };
                let listener = TcpListener::bind(address).await.map_err(bind)?;
                let address = listener.local_addr().map_err(bind)?;
                let kubeconfig = credentials.write_kubeconfig(state_dir, &format!("https://{address}"))?;
                let tls = acceptor(credentials)?;
                let accepting = tokio::spawn(accept_tls(listener, tls, guard, stop.clone()));
                Ok(Self {
                    address: Some(address),
                    kubeconfig: Some(kubeconfig),
                    socket: None,
                    stop,
                    accepting,
                })
            }
            Listen::Unix(path) => {
                let bind = |source| ServeError::Bind { address: path.display().to_string(), source };
                let listener = bind_unix(&path).await.map_err(bind)?;
                let accepting = tokio::spawn(accept_unix(listener, guard, stop.clone()));
                Ok(Self { address: None, kubeconfig: None, socket: Some(path), stop, accepting })
            }
        }
    }

    /// The address listened on; none for a unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The file for `KUBECONFIG`; none for a unix socket, which `kubectl` can't use.
    pub fn kubeconfig_path(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// Stops listening and ends all connections, watches included. Returns when nothing of the server is left.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the embedded API's listener ended abnormally");
        }
        if let Some(path) = self.socket
            && let Err(error) = tokio::fs::remove_file(&path).await
        {
            tracing::warn!(%error, path = %path.display(), "the embedded API's socket could not be removed");
        }
    }
}

/// Lets requests with the right token through.
#[derive(Debug, Clone)]
struct Guard {
    service: Service,
    expected: Arc<str>,
}

impl Guard {
    async fn call(mut self, request: Request<Incoming>) -> Result<Response<Body>, std::convert::Infallible> {
        let given = request.headers().get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
        if !equal_in_constant_time(given, self.expected.as_bytes()) {
            return Ok(Reply::from(ApiError::unauthorized()).into_response());
        }
        self.service.call(request).await
    }
}

/// Compares without telling by its duration where the difference is.
fn equal_in_constant_time(given: &[u8], expected: &[u8]) -> bool {
    let differences = given.iter().zip(expected).fold(0_u8, |all, (left, right)| all | (left ^ right));
    std::hint::black_box(differences) == 0 && given.len() == expected.len()
}

fn acceptor(credentials: Credentials) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(credentials.chain, credentials.key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A socket that nobody listens on any more is replaced; anything else at its path is left alone.
async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path).await => {
            tokio::fs::remove_file(path).await?;
            UnixListener::bind(path)?
        }
        result => result?,
    };
    tokio::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).await?;
    Ok(listener)
}

async fn is_left_behind(path: &Path) -> bool {
    let is_socket = tokio::fs::symlink_metadata(path).await.is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).await.is_err_and(refused)
}

async fn accept_tls(listener: TcpListener, tls: TlsAcceptor, guard: Guard, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (tls, guard) = (tls.clone(), guard.clone());
                    connections.spawn(async move {
                        match tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
                            Ok(Ok(stream)) => serve(stream, guard).await,
                            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                            Err(_) => tracing::debug!("a TLS handshake took too long"),
                        }
                    });
                }
                Err(error) => rest_after(&error, &stop).await,
            },
        }
    }
    connections.shutdown().await;
}

async fn accept_unix(listener: UnixListener, guard: Guard, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, guard.clone()));
                }
                Err(error) => rest_after(&error, &stop).await,
            },
        }
    }
    connections.shutdown().await;
}

/// After a failed accept (out of descriptors, most likely) waits a moment, for the next would fail alike at once.
async fn rest_after(error: &io::Error, stop: &CancellationToken) {
    const REST: std::time::Duration = std::time::Duration::from_millis(100);
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(REST) => {}
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, guard: Guard) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).max_buf_size(HEADER_LIMIT as usize);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(HEADER_LIMIT);
    let service = service_fn(move |request| guard.clone().call(request));
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended early");
    }
}
