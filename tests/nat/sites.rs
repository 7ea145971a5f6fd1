//! Where everybody is, and who calls whom.

/// The network: servers on public addresses, and users behind NATs of every kind of RFC 4787.
pub(crate) const TOPOLOGY: &str = "
public 5.9.0.0/16
ipv6
# supernodes, the first two of them gateways, and a PBX for each gateway
host super1
host super2
host super3
host pbx1
host pbx2
# a TURN server of another make
host coturn
# users
host open
host full nat=full-cone
host rest nat=restricted-cone
host prest nat=port-restricted
host prest2 nat=port-restricted
host sym nat=symmetric
host sym2 nat=symmetric
host lin nat=linux
host fw nat=firewall lan=5.10.1.0/24
nat n-hair port-restricted hairpin
host hair on n-hair
host hair2 on n-hair
nat n-flat port-restricted
host flat on n-flat
host flat2 on n-flat
nat cgn port-restricted
nat home linux on cgn
host cgn-home on home
nat cgn2 symmetric
nat home2 full-cone on cgn2
host cgn2-home on home2
host corp nat=udp-blocked ports=443,80
host corp2 nat=udp-blocked ports=443,80
nat n-six firewall lan=5.10.2.0/24 v6
host six on n-six
";

/// A user, called as the host is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) user: &'static str,
    /// What is between the user and the network.
    pub(crate) network: &'static str,
    /// Whether UDP goes nowhere there.
    pub(crate) udp_blocked: bool,
    /// Whether there is IPv6 alone.
    pub(crate) ipv6: bool,
    /// Whether calls with telephones are tried: one of each kind is enough.
    pub(crate) calls_numbers: bool,
}

const fn site(user: &'static str, network: &'static str, calls_numbers: bool) -> Site {
    Site { user, network, udp_blocked: false, ipv6: false, calls_numbers }
}

/// Every user.
pub(crate) const SITES: [Site; 17] = [
    site("open", "no NAT", true),
    site("full", "full cone", true),
    site("rest", "restricted cone", true),
    site("prest", "port-restricted cone", true),
    site("prest2", "another port-restricted cone", false),
    site("sym", "symmetric", true),
    site("sym2", "another symmetric", false),
    site("lin", "Linux masquerade", true),
    site("fw", "firewall, no NAT", true),
    site("hair", "port-restricted, hairpins", false),
    site("hair2", "the same NAT as `hair`", false),
    site("flat", "port-restricted, no hairpin", false),
    site("flat2", "the same NAT as `flat`", false),
    site("cgn-home", "Linux behind a port-restricted carrier NAT", true),
    site("cgn2-home", "full cone behind a symmetric carrier NAT", true),
    Site { udp_blocked: true, ..site("corp", "UDP blocked, TCP to 80 and 443 only", true) },
    Site { ipv6: true, ..site("six", "IPv6 only, behind a firewall", true) },
];

/// A user behind a second network without UDP, who calls from there alone.
pub(crate) const CORP2: Site =
    Site { udp_blocked: true, ..site("corp2", "another network without UDP", false) };

/// How media between two users has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Relayed,
}

/// Pairs of users: who calls, who is called, and how media has to go between them: by theory (RFC 4787, RFC 5128), and
/// as hole punching without ICE was seen to go in this laboratory.
pub(crate) const PAIRS: [(&str, &str, Way); 33] = [
    ("open", "sym", Way::Direct),
    ("cgn2-home", "open", Way::Direct),
    ("full", "rest", Way::Direct),
    ("full", "prest", Way::Direct),
    ("full", "lin", Way::Direct),
    ("sym", "full", Way::Direct),
    ("full", "fw", Way::Direct),
    ("full", "cgn2-home", Way::Direct),
    ("rest", "sym", Way::Direct),
    ("sym2", "rest", Way::Direct),
    ("prest", "prest2", Way::Direct),
    ("prest", "lin", Way::Direct),
    ("prest", "fw", Way::Direct),
    ("prest", "cgn-home", Way::Direct),
    ("lin", "cgn-home", Way::Direct),
    ("fw", "lin", Way::Direct),
    ("hair", "hair2", Way::Direct),
    ("flat", "flat2", Way::Direct),
    ("six", "open", Way::Direct),
    ("sym", "sym2", Way::Relayed),
    ("sym", "prest", Way::Relayed),
    ("prest", "sym", Way::Relayed),
    ("sym", "lin", Way::Relayed),
    ("fw", "sym", Way::Relayed),
    ("cgn2-home", "cgn-home", Way::Relayed),
    ("cgn2-home", "sym", Way::Relayed),
    ("corp", "open", Way::Relayed),
    ("open", "corp", Way::Relayed),
    ("corp", "full", Way::Relayed),
    ("prest", "corp", Way::Relayed),
    ("corp", "sym", Way::Relayed),
    ("sym", "corp", Way::Relayed),
    ("corp", "corp2", Way::Relayed),
];
