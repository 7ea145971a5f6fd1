//! A small authority chain for tests, here and in other crates: everything from fixed seeds, so
//! the same bytes every time. Not for production: the keys are known.

mod turn;

use call_model::Handle;

pub use turn::{TurnAnswer, TurnClient};

use crate::identity::{
    Abilities, Authority, HandleCertificate, HandleClaims, IdentityError, NodeBundle, NodeClaims, NodeKey,
    Prefix, Role, Trust, UserBundle, Validity,
};

/// A root with one enrolment authority, both valid for a year from one hour before `unix`.
#[derive(Debug)]
pub struct Pki {
    /// The root.
    pub root: Authority,
    /// The enrolment authority.
    pub enrolment: Authority,
    unix: u64,
}

impl Pki {
    /// Builds the chain.
    pub fn new(unix: u64) -> Result<Self, IdentityError> {
        let validity = Validity::days_from(unix.saturating_sub(3600), 365);
        let root = Authority::init_root("Test Root", [0xa1; 32], validity)?;
        let enrolment = root.init_enrolment("Test Enrolment", [0xa2; 32], 2, validity)?;
        Ok(Self { root, enrolment, unix })
    }

    /// Returns the trust in the root.
    pub fn trust(&self) -> Result<Trust, IdentityError> {
        Trust::from_pem(&self.root.certificate_pem())
    }

    /// Returns the validity of 30 days that nodes and users get.
    pub fn validity(&self) -> Validity {
        Validity::days_from(self.unix.saturating_sub(60), 30)
    }

    /// Certifies a supernode. Key and serial follow from `number`.
    pub fn supernode(&self, number: u8) -> Result<NodeBundle, IdentityError> {
        self.node(number, &NodeClaims::supernode())
    }

    /// Certifies a gateway that may offer and assign numbers under `prefixes`.
    pub fn gateway(&self, number: u8, prefixes: &[Prefix]) -> Result<NodeBundle, IdentityError> {
        let claims = NodeClaims {
            role: Role::Gateway,
            prefixes: prefixes.to_vec(),
            number_prefixes: prefixes.to_vec(),
            rate: None,
        };
        self.node(number, &claims)
    }

    /// Certifies a node with any claims.
    pub fn node(&self, number: u8, claims: &NodeClaims) -> Result<NodeBundle, IdentityError> {
        let key = key(number);
        let (name, serial) = (format!("node-{number}"), 1000 + u64::from(number));
        let chain = self.enrolment.issue_node(&name, &key.public(), claims, serial, self.validity())?;
        Ok(NodeBundle { key, chain })
    }

    /// Certifies a user with one device.
    pub fn user(&self, handle: &Handle, number: u8) -> Result<UserBundle, IdentityError> {
        let key = key(number);
        Ok(UserBundle { certificate: self.handle(handle, &[&key], u64::from(number))?, key })
    }

    /// Certifies a user with several devices.
    pub fn handle(
        &self,
        handle: &Handle,
        keys: &[&NodeKey],
        serial: u64,
    ) -> Result<HandleCertificate, IdentityError> {
        self.enrolment.issue_handle(HandleClaims {
            handle: handle.clone(),
            keys: keys.iter().map(|key| key.public()).collect(),
            serial: 2000 + serial,
            validity: self.validity(),
            abilities: Abilities::CALLS.with(Abilities::TEXT),
            numbers: Vec::new(),
        })
    }
}

/// Returns the key with this number.
pub fn key(number: u8) -> NodeKey {
    NodeKey::from_seed([number; 32])
}
