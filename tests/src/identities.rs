//! The certificates of a control plane: its CA, what its programs show one another, and who its users are.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

/// Who vouches for all of them. It lives and ends with the control plane.
pub(crate) struct Authority {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new CA. Writes `ca.crt`, `server.crt` and `server.key`, and `accounts.key` and
    /// `accounts.pub`, which sign and verify the tokens of accounts.
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "virtnet test CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = Self { ca: CertifiedIssuer::self_signed(ca, KeyPair::generate()?)? };

        let mut server = CertificateParams::new(vec!["localhost".to_owned()])?;
        server.distinguished_name.push(DnType::CommonName, "control-plane");
        server.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        // etcd's one member and the API server call etcd with it too.
        server.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = authority.sign(&server)?;
        write_private(&folder.join("ca.crt"), &authority.ca.pem())?;
        write_private(&folder.join("server.crt"), &certificate)?;
        write_private(&folder.join("server.key"), &key)?;
        let accounts = KeyPair::generate()?;
        write_private(&folder.join("accounts.key"), &accounts.serialize_pem())?;
        write_private(&folder.join("accounts.pub"), &accounts.public_key_pem())?;
        Ok(authority)
    }

    /// Writes a kubeconfig by which this user of this group is known.
    pub(crate) fn write_kubeconfig(
        &self,
        path: &Path,
        server: &str,
        user: &str,
        group: &str,
    ) -> anyhow::Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = self.sign(&params)?;
        let name = "virtnet-test";
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": name,
                "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(self.ca.pem()) },
            }],
            "users": [{
                "name": user,
                "user": {
                    "client-certificate-data": STANDARD.encode(certificate),
                    "client-key-data": STANDARD.encode(key),
                },
            }],
            "contexts": [{ "name": name, "context": { "cluster": name, "user": user, "namespace": "default" } }],
            "current-context": name,
        });
        write_private(path, &format!("{config:#}\n"))
    }

    fn sign(&self, params: &CertificateParams) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.ca)?.pem(), key.serialize_pem()))
    }
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create(true).truncate(true).mode(0o600);
    let written = file.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("writing {}", path.display()))
}
