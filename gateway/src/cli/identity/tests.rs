//! A certificate's whole way between machines that share nothing but files.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use clap::Parser;
use tempfile::TempDir;

use super::*;
use crate::cli::authority::AuthorityCommand;

#[derive(Parser)]
enum Tool {
    #[command(subcommand)]
    Authority(AuthorityCommand),
    #[command(subcommand)]
    Identity(IdentityCommand),
}

/// Three machines: of the root, of the enrolment authority, of a gateway.
struct Machines(TempDir);

impl Machines {
    fn new() -> Self {
        let machines = Self(tempfile::tempdir().unwrap());
        for name in ["offline", "office", "site"] {
            fs::create_dir(machines.path(name)).unwrap();
        }
        machines
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a command line whose paths are written `@machine/file`.
    fn try_run(&self, line: &str) -> Result<String> {
        let path = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.path(name).display().to_string(),
            None => word.to_owned(),
        };
        let words = std::iter::once("causeway".to_owned()).chain(line.split_whitespace().map(path));
        match Tool::try_parse_from(words)? {
            Tool::Authority(command) => crate::cli::authority::run(command),
            Tool::Identity(command) => run(command),
        }
    }

    fn run(&self, line: &str) -> String {
        self.try_run(line).unwrap_or_else(|error| panic!("{line}: {error:#}"))
    }

    fn refused(&self, line: &str) -> String {
        match self.try_run(line) {
            Ok(said) => panic!("{line}: {said}"),
            Err(error) => format!("{error:#}"),
        }
    }

    fn carry(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
    }

    /// The root and an authority under it, each on its own machine, by request and certificate.
    fn with_authority(limits: &str) -> Self {
        let machines = Self::new();
        machines.run("authority init --dir @offline/ca --root-only --name Example");
        machines.run("authority init --dir @office/authority --request-only --name Example");
        machines.carry("office/authority/enrolment.request.pem", "offline/request.pem");
        machines.run(&format!(
            "authority enrol --dir @offline/ca --request @offline/request.pem --out @offline/enrolment.pem {limits}"
        ));
        machines.carry("offline/enrolment.pem", "office/authority/enrolment.pem");
        machines.carry("offline/ca/root.pem", "office/authority/root.pem");
        machines.carry("offline/ca/root.pem", "site/root.pem");
        machines
    }

    /// A gateway whose key never leaves its machine.
    fn with_gateway() -> Self {
        let machines = Self::with_authority("--may-offer +44 --may-number +4420");
        machines.run("identity request gw1 --key @site/gw1.key --out @site/gw1.request.pem");
        machines.carry("site/gw1.request.pem", "office/gw1.request.pem");
        machines.run(
            "authority issue node gw1 --dir @office/authority --role gateway --offer +44 --numbers +442079 \
             --days 100 --request @office/gw1.request.pem --out @office/gw1.pem",
        );
        machines.carry("office/gw1.pem", "site/gw1.certificates.pem");
        machines.run(
            "identity accept --key @site/gw1.key --certificates @site/gw1.certificates.pem --root @site/root.pem \
             --out @site/gateway.pem",
        );
        machines
    }

    fn gateway(&self) -> NodeBundle {
        NodeBundle::from_pem(&fs::read_to_string(self.path("site/gateway.pem")).unwrap()).unwrap()
    }
}

#[test]
fn no_key_leaves_the_machine_that_made_it() {
    let machines = Machines::with_gateway();
    let holds_key = |name: &str| fs::read_to_string(machines.path(name)).unwrap().contains("PRIVATE KEY");
    for carried in [
        "offline/request.pem",
        "offline/enrolment.pem",
        "site/gw1.request.pem",
        "site/gw1.certificates.pem",
        "site/root.pem",
    ] {
        assert!(!holds_key(carried), "{carried}");
    }
    assert!(!machines.path("office/authority/root.key.pem").exists());
    for (file, mode) in [("site/gateway.pem", 0o600), ("site/gw1.key", 0o600)] {
        assert_eq!(fs::metadata(machines.path(file)).unwrap().permissions().mode() & 0o777, mode, "{file}");
    }
    let said = machines.run("identity show @site/gateway.pem --root @site/root.pem");
    assert!(said.contains("gateway gw1") && said.contains("certified under the root"), "{said}");
}

#[test]
fn the_root_decides_which_numbers_an_authority_gives_away() {
    let machines = Machines::with_authority("--may-offer +44 --may-number +4420");
    let issue = |what: &str| format!("authority issue {what} --dir @office/authority --out @office/x.pem");
    for what in [
        "node gw2 --role gateway --offer +49",
        "node gw2 --role gateway --numbers +44",
        "user alice --number +441632960018",
    ] {
        let error = machines.refused(&issue(what));
        assert!(error.contains("may not certify") && !machines.path("office/x.pem").exists(), "{error}");
    }
    machines.run(&issue("user alice --number +442079460018"));
}

#[test]
fn a_gateway_renews_with_its_key_and_is_itself_again() {
    let machines = Machines::with_gateway();
    let before = machines.gateway();
    machines.run("identity renew --identity @site/gateway.pem --out @site/renewal.pem");
    machines.carry("site/renewal.pem", "office/renewal.pem");
    machines.run(
        "authority renew --dir @office/authority --request @office/renewal.pem --out @office/renewed.pem",
    );
    machines.carry("office/renewed.pem", "site/renewed.pem");
    machines.run(
        "identity accept --key @site/gateway.pem --certificates @site/renewed.pem --root @site/root.pem \
         --out @site/gateway.pem",
    );
    let after = machines.gateway();
    assert_eq!((after.key.public(), after.chain.claims()), (before.key.public(), before.chain.claims()));
    assert_eq!(after.chain.serial(), before.chain.serial() + 1);
    assert_eq!(after.chain.validity().days(), 100);
    let listed = machines.run("authority list --dir @office/authority");
    assert_eq!(listed.matches("gw1").count(), 2, "{listed}");

    // The certificate of another key, or of nobody known here, overwrites nothing.
    machines.run("authority issue node gw2 --dir @office/authority --role supernode --out @site/gw2.pem");
    let other = machines.refused(
        "identity accept --key @site/gateway.pem --certificates @site/gw2.pem --root @site/root.pem \
         --out @site/gateway.pem",
    );
    assert!(other.contains("another key"), "{other}");
    let in_the_way = machines.refused(
        "identity accept --key @site/gw2.pem --certificates @site/gw2.pem --root @site/root.pem \
         --out @site/gateway.pem",
    );
    assert!(in_the_way.contains("no identity of gw2"), "{in_the_way}");
    assert_eq!(machines.gateway().chain, after.chain);
}

#[test]
fn what_is_revoked_is_not_renewed() {
    let machines = Machines::with_gateway();
    machines.run("identity renew --identity @site/gateway.pem --out @site/renewal.pem");
    let serial = machines.gateway().chain.serial();
    machines.run(&format!("authority revoke {serial} --dir @office/authority --reason key-compromise"));
    let renew =
        "authority renew --dir @office/authority --request @site/renewal.pem --out @office/renewed.pem";
    let error = machines.refused(renew);
    assert!(error.contains("revoked (key-compromise)"), "{error}");
    // Nor when the list cannot be read.
    fs::write(machines.path("office/authority/revoked.pem"), "gone").unwrap();
    assert!(machines.refused(renew).contains("revoked.pem"));
    assert!(!machines.path("office/renewed.pem").exists());
}

#[test]
fn a_user_has_several_devices_and_changes_the_key_of_one() {
    let machines = Machines::with_authority("");
    for device in ["phone", "desk"] {
        machines
            .run(&format!("identity request alice --key @site/{device}.key --out @site/{device}.request"));
    }
    machines.run(
        "authority issue user alice --dir @office/authority --request @site/phone.request \
         --request @site/desk.request --ability be-called --ability text --out @site/alice.pem",
    );
    let certificate = |file: &str| {
        let text = fs::read_to_string(machines.path(file)).unwrap();
        p2p_edge::identity::HandleCertificate::from_pem(&text).unwrap()
    };
    let issued = certificate("site/alice.pem");
    assert_eq!((issued.claims().keys.len(), issued.claims().abilities.0), (2, 4 | 8));
    let twice = machines.refused(
        "authority issue user alice --dir @office/authority --request @site/phone.request \
         --request @site/phone.request --out @site/twice.pem",
    );
    assert!(twice.contains("the same key"), "{twice}");
    let other = machines.refused(
        "authority issue user bob --dir @office/authority --request @site/phone.request --out @site/bob.pem",
    );
    assert!(other.contains("for alice, not for bob"), "{other}");

    let text =
        ["desk.key", "alice.pem"].map(|f| fs::read_to_string(machines.path(&format!("site/{f}"))).unwrap());
    fs::write(machines.path("site/desk.pem"), text.concat()).unwrap();
    machines.run("identity renew --identity @site/desk.pem --new-key @site/new.key --out @site/renewal.pem");
    let said = machines.run(
        "authority renew --dir @office/authority --request @site/renewal.pem --days 10 --out @site/renewed.pem",
    );
    assert!(said.contains("authority revoke") && said.contains("superseded"), "{said}");
    let renewed = certificate("site/renewed.pem");
    let new = NodeKey::from_pem(&fs::read_to_string(machines.path("site/new.key")).unwrap()).unwrap();
    assert_eq!(renewed.claims().keys, [issued.claims().keys[0].clone(), new.public()]);
    assert_eq!(renewed.claims().validity.days(), 10);
}

#[test]
fn an_authority_is_restored_from_its_backup() {
    let machines = Machines::with_gateway();
    let phrase = machines.path("office/passphrase");
    fs::write(&phrase, "correct horse battery staple\n").unwrap();
    let backup = "identity backup @office/authority --out @offline/authority.backup --passphrase-file @office/passphrase";
    assert!(machines.refused(backup).contains("chmod 600"));
    fs::set_permissions(&phrase, fs::Permissions::from_mode(0o600)).unwrap();
    let said = machines.run(backup);
    assert!(said.contains("enrolment.key.pem") && said.contains("serial"), "{said}");
    let restore = "identity restore @offline/authority.backup --into @site/authority --passphrase-file @office/passphrase";
    machines.run(restore);
    assert!(machines.refused(restore).contains("move it away first"));
    // It goes on where it was: no number is given out twice.
    let said =
        machines.run("authority issue node gw3 --dir @site/authority --role supernode --out @site/gw3.pem");
    assert!(said.contains(&format!("certificate {}", machines.gateway().chain.serial() + 1)), "{said}");
}
