//! [`Backend`]: a vhost-user back end of the tests' own, which says what one has to say and moves no packets (QEMU's manual,
//! "Vhost-user Protocol"). By it a function is plugged and its driver comes up as with any other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Features of virtio-net that it offers (virtio 1.2, sections 5.1.3 and 6): CSUM, GUEST_CSUM, MTU, MRG_RXBUF, STATUS, CTRL_VQ,
/// CTRL_RX, MQ, CTRL_MAC_ADDR, VERSION_1, and VHOST_USER_F_PROTOCOL_FEATURES.
const FEATURES: u64 = 1 | 1 << 1 | 1 << 3 | 0xf << 15 | 1 << 22 | 1 << 23 | 1 << 32 | 1 << 30;
/// VHOST_USER_PROTOCOL_F_MQ and VHOST_USER_PROTOCOL_F_STATUS.
const PROTOCOL_FEATURES: u64 = 1 | 1 << 16;
/// Queue pairs that it has at most.
const PAIRS: u64 = 8;
/// Longer than any message of a function's.
const LONGEST: usize = 4096;
/// DRIVER_OK of the device status (virtio 1.2, section 2.1).
const DRIVER_OK: u64 = 4;

/// What a front end has told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Front ends that are connected and have begun to talk.
    pub connected: u32,
    /// The guest's driver is up.
    pub driver: bool,
    /// The features that the driver accepted.
    pub features: u64,
}

/// A back end that listens. Dropped, it ends, and its socket goes.
#[derive(Debug)]
pub struct Backend {
    path: PathBuf,
    told: watch::Receiver<Told>,
    _tasks: JoinSet<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Backend {
    /// One that listens there.
    ///
    /// # Errors
    /// Where it can't.
    pub fn listen(path: &Path) -> anyhow::Result<Self> {
        Self::with(path, true)
    }

    /// One that takes connections and never answers, as one that hangs.
    ///
    /// # Errors
    /// Where it can't listen.
    pub fn mute(path: &Path) -> anyhow::Result<Self> {
        Self::with(path, false)
    }

    fn with(path: &Path, answers: bool) -> anyhow::Result<Self> {
        let listener =
            UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
        let (tell, told) = watch::channel(Told::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::new(tell), answers));
        Ok(Self { path: path.to_owned(), told, _tasks: tasks })
    }

    /// What its front end has told, now and later.
    pub fn told(&self) -> watch::Receiver<Told> {
        self.told.clone()
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

async fn serve(listener: UnixListener, told: Arc<watch::Sender<Told>>, answers: bool) {
    let mut front_ends = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let told = Arc::clone(&told);
        front_ends.spawn(async move {
            let mut stream = stream;
            // Once it has begun to talk: that something may be read is told now and then where nothing came, and a test would go on
            // while its function is not as far as that.
            let Ok(first) = stream.read_u32_le().await else { return };
            told.send_modify(|told| told.connected += 1);
            if answers {
                // A front end that ends is no failure of the back end's.
                let _ = talk(stream, first, &told).await;
            } else {
                let mut ignored = [0; LONGEST];
                while stream.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
            }
            told.send_modify(|told| {
                told.connected -= 1;
                told.driver = false;
            });
        });
    }
}

/// One front end, whose first request is that one, until it goes. File descriptors that come with messages are closed by the
/// kernel, as nobody takes them.
async fn talk(mut stream: UnixStream, first: u32, told: &watch::Sender<Told>) -> anyhow::Result<()> {
    let (mut status, mut request) = (0, first);
    loop {
        let (_flags, size) = (stream.read_u32_le().await?, stream.read_u32_le().await?);
        let size = usize::try_from(size)?;
        ensure!(size <= LONGEST, "a message {request} of {size} bytes");
        let mut payload = vec![0; size];
        stream.read_exact(&mut payload).await?;
        let number = || payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default();
        let reply = match request {
            // GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, GET_STATUS
            1 => Some(FEATURES),
            15 => Some(PROTOCOL_FEATURES),
            17 => Some(PAIRS),
            40 => Some(status),
            // GET_VRING_BASE: the ring stops where it began, as nothing was taken from it.
            11 => Some(number() & 0xffff_ffff),
            // SET_FEATURES
            2 => {
                let features = number();
                told.send_modify(|told| told.features = features);
                None
            }
            // SET_STATUS
            39 => {
                status = number();
                told.send_modify(|told| told.driver = status & DRIVER_OK != 0);
                None
            }
            _ => None,
        };
        if let Some(reply) = reply {
            // Version 1 of the protocol, and a reply.
            let mut message = Vec::new();
            for word in [request, 1 | 1 << 2, 8] {
                message.extend(word.to_le_bytes());
            }
            message.extend(reply.to_le_bytes());
            stream.write_all(&message).await?;
        }
        request = stream.read_u32_le().await?;
    }
}
