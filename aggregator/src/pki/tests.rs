//! The authority: what it makes, keeps and refuses.

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{CertificateSigningRequest, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use x509_parser::prelude::X509Certificate;

use super::*;
use crate::clock;

fn site() -> SiteId {
    "s1".parse().unwrap()
}

fn names() -> Vec<String> {
    ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into()
}

fn authority() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let (authority, _) = Authority::init(dir.path(), &site(), &names(), clock::now()).unwrap();
    (dir, authority)
}

fn csr(key: &KeyPair) -> CertificateSigningRequest {
    // Asks for more than it may have: another agent's name, and to be an authority.
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("picket://s1/agent/other".try_into().unwrap()));
    params.serialize_request(key).unwrap()
}

fn parsed<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    look(&X509Certificate::from_der(&der).unwrap().1)
}

#[test]
fn files_are_private_complete_and_load_to_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (made, recovery) = Authority::init(dir.path(), &site(), &names(), clock::now()).unwrap();
    let home = dir.path().join("pki");
    let private = hex::encode(recovery.key().expose());
    for entry in std::fs::read_dir(&home).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        assert!(!std::fs::read_to_string(entry.path()).unwrap().contains(&private), "{:?}", entry.path());
    }
    assert_eq!(std::fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);

    let loaded = Authority::load(dir.path()).unwrap();
    assert_eq!(loaded.site(), made.site());
    assert_eq!(loaded.ca_spki_sha256(), made.ca_spki_sha256());
    assert_eq!(loaded.signing_key().unwrap().verifying_key(), made.signing_key().unwrap().verifying_key());
    assert_eq!(loaded.recovery_key(), seal::public_of(recovery.key()).unwrap());
    assert_eq!(parsed(loaded.ca_pem(), |ca| spki_sha256(ca.public_key().raw)), loaded.ca_spki_sha256());

    let again = RecoveryPrivateKey::from_line(&recovery.to_line()).unwrap();
    assert_eq!(again.key().expose(), recovery.key().expose());
    assert!(matches!(Authority::init(dir.path(), &site(), &names(), clock::now()), Err(PkiError::Exists(_))));
}

#[test]
fn an_interrupted_init_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("pki.new")).unwrap();
    std::fs::write(dir.path().join("pki.new/ca.key"), "half").unwrap();
    Authority::init(dir.path(), &site(), &names(), clock::now()).unwrap();
    Authority::load(dir.path()).unwrap();
}

#[test]
fn damaged_files_are_named() {
    for (name, content) in [("site", "Not A Site"), ("ca.key", "x"), ("ca.pem", "x"), ("signing.seed", "abc"), ("recovery.pub", "")]
    {
        let (dir, _) = authority();
        std::fs::write(dir.path().join("pki").join(name), content).unwrap();
        let error = Authority::load(dir.path()).unwrap_err();
        assert!(matches!(&error, PkiError::Damaged { path, .. } if path.ends_with(name)), "{name}: {error:?}");
    }
    let (dir, _) = authority();
    std::fs::remove_file(dir.path().join("pki/server.pem")).unwrap();
    assert!(matches!(Authority::load(dir.path()), Err(PkiError::File { .. })));
}

#[test]
fn the_ca_signs_end_entities_only() {
    let (_dir, authority) = authority();
    parsed(authority.ca_pem(), |ca| {
        let constraints = ca.basic_constraints().unwrap().unwrap();
        assert!(constraints.value.ca && constraints.value.path_len_constraint == Some(0));
    });
}

#[test]
fn an_agent_gets_its_own_name_and_nothing_it_asked_for() {
    let (_dir, authority) = authority();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let now = clock::now();
        let agent = "r07".parse().unwrap();
        let (pem, spki) = authority.sign_agent(&csr(&key).pem().unwrap(), &agent, now, 365).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let peer = identity(&der).unwrap();
        assert_eq!(peer.identity, Identity { site: site(), role: Role::Agent(agent) });
        assert_eq!(peer.spki_sha256, spki);
        parsed(&pem, |certificate| {
            let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
            assert_eq!(names.len(), 1, "{names:?}");
            assert!(!certificate.is_ca());
            let usage = certificate.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.client_auth && !usage.server_auth && !usage.any);
            let validity = certificate.validity();
            let days = (validity.not_after.timestamp() - now.wall.as_second()) / 86_400;
            assert_eq!(days, i64::from(MAX_AGENT_DAYS));
            assert!(validity.not_before.timestamp() < now.wall.as_second());
        });
    }
}

#[test]
fn a_witness_gets_a_servers_certificate() {
    let (_dir, authority) = authority();
    let host = "h1".parse().unwrap();
    let key = KeyPair::generate().unwrap();
    let (pem, _) = authority.sign_witness(&csr(&key).pem().unwrap(), &host, clock::now(), 9999).unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    assert_eq!(identity(&der).unwrap().identity, Identity { site: site(), role: Role::Witness(host) });
    parsed(&pem, |certificate| {
        // No name of a machine: it cannot pass for the aggregator.
        let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names.len(), 1, "{names:?}");
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any);
        let days = (certificate.validity().not_after.timestamp() - clock::now().wall.as_second()) / 86_400;
        assert!((i64::from(MAX_WITNESS_DAYS) - days) <= 1);
    });
}

#[test]
fn requests_without_proof_are_refused() {
    let (_dir, authority) = authority();
    let agent = "r07".parse().unwrap();
    let key = KeyPair::generate().unwrap();
    let good = csr(&key);
    let mut forged = good.der().to_vec();
    // The last byte belongs to the signature.
    *forged.last_mut().unwrap() ^= 1;
    let pem = |der: &[u8]| {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
    };
    authority.sign_agent(&pem(good.der()), &agent, clock::now(), 1).unwrap();
    for bad in [
        pem(&forged),
        pem(b"\x30\x03\x02\x01\x00"),
        pem(&[good.der().as_ref(), b"x"].concat()),
        "nonsense".into(),
        "x".repeat(9_000),
    ] {
        let error = authority.sign_agent(&bad, &agent, clock::now(), 1).unwrap_err();
        assert!(matches!(error, PkiError::Request(_)), "{error:?}");
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    authority.sign_agent(&csr(&key).pem().unwrap(), &agent, clock::now(), 1).unwrap();
}

#[test]
fn server_names_are_checked_and_replaced() {
    let (dir, mut authority) = authority();
    let before = authority.server_pem.clone();
    for bad in ["", "a b", "*", "ä.example", "http://x"] {
        assert!(matches!(authority.reissue_server(&[bad.to_owned()], clock::now()), Err(PkiError::Name(_))), "{bad}");
    }
    assert_eq!(authority.server_pem, before);
    authority.reissue_server(&["aggr.example".to_owned(), "10.0.0.9".to_owned()], clock::now()).unwrap();
    assert_eq!(Authority::load(dir.path()).unwrap().server_pem, authority.server_pem);
    parsed(&authority.server_pem, |certificate| {
        assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
    });
    authority.server_tls_for_api().unwrap();
    GateTls::new(authority.gate_material(Vec::new()).unwrap()).unwrap();
}
