//! Once everything is set up, a run needs little of what it was started with: this process gives up the rest, so that whoever
//! finds a way into it by a packet has won little. It lasts for threads that are started later, and there is no way back.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use caps::{CapSet, Capability};
use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, path_beneath_rules,
};

/// What is left for a run to do.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Directories in which files are made, as by a capture that rotates.
    pub directories: Vec<PathBuf>,
}

/// What this process has given up.
#[derive(Clone, Debug)]
pub struct Confined {
    /// The capabilities that are left, `CAP_NET_ADMIN` first.
    pub capabilities: Vec<String>,
    /// How much of Landlock this kernel does: `full`, `partial` or `none`.
    pub landlock: &'static str,
}

/// Gives up what a run does not need: privileges by `exec`; capabilities, but for undoing the set-up and reading the config
/// again; by Landlock all access to files but reading, those that are open, and those in [`Needs::directories`]. Only for
/// a process that has no other thread yet.
///
/// # Errors
/// What the kernel refuses. That it knows no Landlock is no error.
pub fn confine(needs: &Needs) -> io::Result<Confined> {
    nix::sys::prctl::set_no_new_privs()?;
    // Before the capabilities, which reading the directories may take.
    let landlock = restrict(needs).map_err(io::Error::other)?;
    let capabilities = drop_capabilities(needs).map_err(io::Error::other)?;
    Ok(Confined { capabilities, landlock })
}

fn drop_capabilities(needs: &Needs) -> Result<Vec<String>, caps::errors::CapsError> {
    let mut wanted = vec![Capability::CAP_NET_ADMIN, Capability::CAP_DAC_READ_SEARCH];
    if !needs.directories.is_empty() {
        wanted.push(Capability::CAP_DAC_OVERRIDE);
    }
    let had = caps::read(None, CapSet::Permitted)?;
    wanted.retain(|capability| had.contains(capability));
    let kept: HashSet<Capability> = wanted.iter().copied().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    // Takes CAP_SETPCAP. Where that is missing, as with `cap_drop: [ALL]`, the bounding set is small already, and without new
    // privileges by exec nothing comes back from it.
    if had.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(wanted.iter().map(ToString::to_string).collect())
}

fn restrict(needs: &Needs) -> Result<&'static str, RulesetError> {
    // The last version of which this program was tried; a newer kernel does the same.
    const KNOWN: ABI = ABI::V5;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let files = read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::Truncate;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(["/"], read))?
        .add_rules(path_beneath_rules(&needs.directories, files))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => "full",
        RulesetStatus::PartiallyEnforced => "partial",
        RulesetStatus::NotEnforced => "none",
    })
}
