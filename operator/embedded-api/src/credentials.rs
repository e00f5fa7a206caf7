//! The server's identity on disk: its CA, certificate, key and bearer token, made once and kept.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

const CA: &str = "ca.crt";
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";
const TOKEN: &str = "token";
/// Name of the file that `kubectl` is pointed at.
const KUBECONFIG: &str = "kubeconfig";

/// What the listener shows and asks for.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) ca: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) token: String,
}

/// Why the credentials can't be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file can't be read or written.
    #[error("{operation} {}: check that the directory belongs to this user", path.display())]
    File {
        /// `reading`, `writing` or `making`.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A certificate can't be made.
    #[error("making the server's certificate")]
    Make(#[from] rcgen::Error),
    /// A kept certificate or key is damaged.
    #[error("reading {}: it is no PEM; remove the credentials there, and new ones are made", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
}

impl Credentials {
    /// Reads the credentials kept in a directory, or makes them where one is missing. The CA's key is not kept, so
    /// that nothing else can ever be signed by it.
    pub(crate) fn open(directory: &Path) -> Result<Self, CredentialsError> {
        let failed = |operation, path: &Path, source| CredentialsError::File {
            operation,
            path: path.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed("making", directory, error))?;
        let paths = [CA, CERTIFICATE, KEY, TOKEN].map(|name| directory.join(name));
        if !paths.iter().all(|path| path.exists()) {
            let texts = generate()?;
            for (path, text) in paths.iter().zip(&texts) {
                write_private(path, text).map_err(|error| failed("writing", path, error))?;
            }
        }
        let mut texts = Vec::with_capacity(paths.len());
        for path in &paths {
            texts.push(fs::read_to_string(path).map_err(|error| failed("reading", path, error))?);
        }
        let [ca, certificate, key, token] = texts.try_into().unwrap_or_default();
        let damaged = |path: &Path, source| CredentialsError::Damaged { path: path.to_owned(), source };
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| damaged(&paths[1], error))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| damaged(&paths[2], error))?;
        Ok(Self { ca, chain, key, token: token.trim().to_owned() })
    }

    /// Writes the file by which `kubectl` finds and trusts the server; returns its path.
    pub(crate) fn write_kubeconfig(
        &self,
        directory: &Path,
        address: &str,
    ) -> Result<PathBuf, CredentialsError> {
        let name = "virtnet";
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": name,
                "cluster": { "server": address, "certificate-authority-data": STANDARD.encode(&self.ca) },
            }],
            "users": [{ "name": name, "user": { "token": self.token } }],
            "contexts": [{ "name": name, "context": { "cluster": name, "user": name, "namespace": "default" } }],
            "current-context": name,
        });
        let path = directory.join(KUBECONFIG);
        // JSON is YAML, and needs no second serializer.
        write_private(&path, &format!("{config:#}\n")).map_err(|source| CredentialsError::File {
            operation: "writing",
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }
}

/// Puts a file in place as a whole, readable by its owner alone.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn generate() -> Result<[String; 4], rcgen::Error> {
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "virtnet embedded API CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let mut server = CertificateParams::new(vec!["localhost".to_owned()])?;
    server.distinguished_name.push(DnType::CommonName, "virtnet embedded API");
    server.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    server.subject_alt_names.push(SanType::IpAddress(Ipv6Addr::LOCALHOST.into()));
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &ca)?;

    let token: [u8; 32] = rand::random();
    Ok([ca.pem(), certificate.pem(), key.serialize_pem(), URL_SAFE_NO_PAD.encode(token)])
}
