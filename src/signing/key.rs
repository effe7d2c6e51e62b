//! Private keys that sign.

use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature;
use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::secret::Secret;
use crate::signing::certificate::Certificate;

/// Why a text is no key that can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("is not a private key in PEM")]
    NotAKey,
    #[error("holds an encrypted private key, which nobody here can open")]
    Encrypted,
    #[error("holds an EC private key in the form of SEC 1 (BEGIN EC PRIVATE KEY), which is not supported")]
    Sec1,
    #[error("holds an RSA key of less than 2048 bits, which servers refuse")]
    Short,
    #[error("holds a key that cannot sign: RSA of 2048 to 4096 bits, EC P-256 or P-384, or Ed25519 can")]
    Kind,
}

impl KeyError {
    /// The next step, with the file if it is one.
    pub fn hint(self, file: Option<&str>) -> String {
        let file = file.unwrap_or("OLD.pem");
        match self {
            Self::NotAKey => "write the whole key, from -----BEGIN PRIVATE KEY----- to its END line".into(),
            Self::Encrypted | Self::Sec1 => {
                format!("convert it: openssl pkcs8 -topk8 -nocrypt -in {file} -out NEW.pem && chmod 600 NEW.pem")
            }
            Self::Short | Self::Kind => {
                "make a new one, and register its public half: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out NEW.pem && chmod 600 NEW.pem"
                    .into()
            }
        }
    }
}

/// The random source failed, or the key and its public half do not belong together.
#[derive(Debug, thiserror::Error)]
#[error("the key cannot sign")]
pub struct SignatureError;

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A private key.
pub struct SigningKey(Pair);

impl SigningKey {
    /// Reads PKCS#8 or PKCS#1 in PEM.
    pub fn from_pem(pem: &Secret) -> Result<Self, KeyError> {
        let text = pem.expose();
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        match PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::NotAKey)? {
            PrivateKeyDer::Pkcs1(der) => rsa(RsaKeyPair::from_der(der.secret_pkcs1_der())),
            PrivateKeyDer::Pkcs8(der) => pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(_) => Err(KeyError::Sec1),
            _ => Err(KeyError::Kind),
        }
        .map(Self)
    }

    /// The `alg` of RFC 7518 and RFC 8037. `pss`: RSA signs by RSASSA-PSS, as some servers insist.
    pub fn algorithm(&self, pss: bool) -> &'static str {
        match &self.0 {
            Pair::Rsa(_) if pss => "PS256",
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::P384(_) => "ES384",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// Signs by the algorithm of [`algorithm`](Self::algorithm).
    pub fn sign(&self, message: &[u8], pss: bool) -> Result<Vec<u8>, SignatureError> {
        let random = SystemRandom::new();
        match &self.0 {
            Pair::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding =
                    if pss { &signature::RSA_PSS_SHA256 } else { &signature::RSA_PKCS1_SHA256 };
                let mut bytes = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut bytes).map_err(|_| SignatureError)?;
                Ok(bytes)
            }
            Pair::P256(pair) | Pair::P384(pair) => {
                Ok(pair.sign(&random, message).map_err(|_| SignatureError)?.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// Whether it is the key of this certificate: its public half is in there.
    pub fn is_of(&self, certificate: &Certificate) -> bool {
        let holds = |public: &[u8]| certificate.der().windows(public.len()).any(|window| window == public);
        match &self.0 {
            Pair::Rsa(pair) => {
                let PublicKeyComponents { n, .. } = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                holds(&n)
            }
            Pair::P256(pair) | Pair::P384(pair) => holds(pair.public_key().as_ref()),
            Pair::Ed25519(pair) => holds(pair.public_key().as_ref()),
        }
    }
}

fn rsa(pair: Result<RsaKeyPair, ring::error::KeyRejected>) -> Result<Pair, KeyError> {
    match pair {
        Ok(pair) => Ok(Pair::Rsa(Box::new(pair))),
        Err(error) if error.to_string() == "TooSmall" => Err(KeyError::Short),
        Err(_) => Err(KeyError::Kind),
    }
}

fn pkcs8(der: &[u8]) -> Result<Pair, KeyError> {
    let random = SystemRandom::new();
    let p256 = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, der, &random);
    if let Ok(pair) = p256 {
        return Ok(Pair::P256(pair));
    }
    if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, der, &random) {
        return Ok(Pair::P384(pair));
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return Ok(Pair::Ed25519(pair));
    }
    rsa(RsaKeyPair::from_pkcs8(der))
}
