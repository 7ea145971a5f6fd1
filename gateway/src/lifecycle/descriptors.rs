//! How many files the daemon may hold open, and how many it needs.

use crate::config::{Config, Role};

/// Raises the limit of open descriptors as far as it goes, and returns it; `None`: there is none.
pub(super) fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current
}

/// Every call takes up to four sockets, which stay open while their ports rest after it; the overlay,
/// the trunks and the files take some more.
pub(super) fn too_few_descriptors(config: &Config, limit: Option<u64>) -> Option<String> {
    const SPARE: u64 = 256;
    let wanted = 4 * config.limits.calls as u64 + SPARE;
    let limit = limit.filter(|limit| config.overlay.role == Role::Gateway && *limit < wanted)?;
    let calls = config.limits.calls;
    Some(format!(
        "limits.calls: {calls} calls need {wanted} open files, and the system allows {limit}; \
         raise the limit (LimitNOFILE, ulimit -n) or lower limits.calls"
    ))
}
