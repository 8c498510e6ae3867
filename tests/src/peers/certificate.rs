//! Certificates for foreign programs: an authority, and servers and clients under it. Files of PEM, valid for a test only.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A certificate and its key, each in a PEM file.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A certificate authority of a test.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    certificate: PathBuf,
}

impl Authority {
    /// Makes an authority; its certificate and what it issues are files of `folder`.
    ///
    /// # Errors
    /// When the key cannot be made or a file not be written.
    pub fn new(folder: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = named("test authority", Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = folder.join("ca.pem");
        std::fs::write(&certificate, params.self_signed(&key)?.pem())?;
        Ok(Self { issuer: Issuer::new(params, key), folder: folder.to_owned(), certificate })
    }

    /// The authority's own certificate, for those who shall trust it.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// A certificate for a server at `address`.
    ///
    /// # Errors
    /// When the key cannot be made or a file not be written.
    pub fn server(&self, name: &str, address: IpAddr) -> Result<Identity> {
        self.issue(name, vec![address.to_string()], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client called `name`.
    ///
    /// # Errors
    /// When the key cannot be made or a file not be written.
    pub fn client(&self, name: &str) -> Result<Identity> {
        self.issue(name, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, name: &str, subjects: Vec<String>, usage: ExtendedKeyUsagePurpose) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = named(name, subjects)?;
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer)?;
        written(&self.folder, name, &certificate.pem(), &key)
    }
}

/// A certificate for a server at `address` that only it vouches for, as BMCs have.
///
/// # Errors
/// When the key cannot be made or a file not be written.
pub fn self_signed(folder: &Path, name: &str, address: IpAddr) -> Result<Identity> {
    let key = KeyPair::generate()?;
    let certificate = named(name, vec![address.to_string()])?.self_signed(&key)?;
    written(folder, name, &certificate.pem(), &key)
}

fn named(name: &str, subjects: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(subjects)?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn written(folder: &Path, name: &str, certificate_pem: &str, key: &KeyPair) -> Result<Identity> {
    let identity = Identity { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
    std::fs::write(&identity.certificate, certificate_pem)?;
    std::fs::write(&identity.key, key.serialize_pem())?;
    Ok(identity)
}
