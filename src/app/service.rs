//! Tells the service manager what this process is about: systemd, or who else gives a `NOTIFY_SOCKET` (sd_notify(3)).

use sd_notify::NotifyState;

/// It intercepts.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It reads its config again; [`ready`] follows.
pub(super) fn reloading() {
    // Without the time systemd takes the message for one of an earlier reload, and waits (`Type=notify-reload`).
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// It takes no new flows, and ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager was not told");
    }
}
