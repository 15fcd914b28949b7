//! SCRAM credentials (RFC 5802, KIP-554): what the broker keeps of a password, from which nobody can authenticate.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac, digest::Digest};
use serde::{Deserialize, Serialize};
use sha2::{Sha256, Sha512};

/// The fewest and the most iterations that are taken; both mechanisms have the same.
pub const ITERATIONS: std::ops::RangeInclusive<i32> = 4096..=16384;

/// The longest user name that is taken, in bytes: a credential is found by it in the metadata store, whose keys are short.
pub const MAX_USER_BYTES: usize = 900;

/// A mechanism.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Mechanism {
    /// SCRAM-SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    Sha256,
    /// SCRAM-SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    Sha512,
}

impl Mechanism {
    /// The mechanism of Kafka's code.
    pub fn of(code: i8) -> Option<Mechanism> {
        match code {
            1 => Some(Mechanism::Sha256),
            2 => Some(Mechanism::Sha512),
            _ => None,
        }
    }

    /// Kafka's code.
    pub fn code(self) -> i8 {
        match self {
            Mechanism::Sha256 => 1,
            Mechanism::Sha512 => 2,
        }
    }

    /// Stored key and server key of a salted password.
    fn keys(self, salted_password: &[u8]) -> (Vec<u8>, Vec<u8>) {
        match self {
            Mechanism::Sha256 => {
                let key = |text: &[u8]| mac::<Hmac<Sha256>>(salted_password, text);
                (Sha256::digest(key(CLIENT_KEY)).to_vec(), key(SERVER_KEY))
            }
            Mechanism::Sha512 => {
                let key = |text: &[u8]| mac::<Hmac<Sha512>>(salted_password, text);
                (Sha512::digest(key(CLIENT_KEY)).to_vec(), key(SERVER_KEY))
            }
        }
    }
}

const CLIENT_KEY: &[u8] = b"Client Key";
const SERVER_KEY: &[u8] = b"Server Key";

fn mac<M: Mac + KeyInit>(key: &[u8], text: &[u8]) -> Vec<u8> {
    let keyed = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    keyed.chain_update(text).finalize().into_bytes().to_vec()
}

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramCredential {
    #[serde(with = "text")]
    salt: Vec<u8>,
    #[serde(with = "text")]
    stored_key: Vec<u8>,
    #[serde(with = "text")]
    server_key: Vec<u8>,
    /// Rounds of the password's salting.
    pub iterations: i32,
}

/// Shows nothing that must not be in a log.
impl std::fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScramCredential").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl ScramCredential {
    /// From the salted password that an administrator's client sends, which is not kept.
    pub fn new(mechanism: Mechanism, salt: &[u8], salted_password: &[u8], iterations: i32) -> ScramCredential {
        let (stored_key, server_key) = mechanism.keys(salted_password);
        ScramCredential { salt: salt.to_vec(), stored_key, server_key, iterations }
    }
}

/// Bytes as base64, in JSON.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Engine, STANDARD};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(text: &str) -> Vec<u8> {
        STANDARD.decode(text).expect("base64")
    }

    /// RFC 7677, 3: user "user", password "pencil", 4096 rounds.
    #[test]
    fn keys_are_those_of_the_example_in_the_standard() {
        let salted = base64("xKSVEDI6tPlSysH6mUQZOeeOp01r6B3fcJbodRPcYV0=");
        let found = ScramCredential::new(Mechanism::Sha256, &base64("W22ZaJ0SNY7soEsUEjb6gQ=="), &salted, 4096);
        let said = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let server_signature = mac::<Hmac<Sha256>>(&found.server_key, said.as_bytes());
        assert_eq!(STANDARD.encode(server_signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let client_signature = mac::<Hmac<Sha256>>(&found.stored_key, said.as_bytes());
        let proof = base64("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let client_key: Vec<u8> = proof.iter().zip(&client_signature).map(|(a, b)| a ^ b).collect();
        assert_eq!(Sha256::digest(client_key).to_vec(), found.stored_key);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let one = ScramCredential::new(Mechanism::Sha512, b"salt", b"salted password", 8192);
        assert_eq!((one.stored_key.len(), one.server_key.len()), (64, 64));
        assert_eq!(format!("{one:?}"), "ScramCredential { iterations: 8192, .. }");
    }
}
