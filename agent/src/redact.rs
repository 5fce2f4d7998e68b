//! Keeps secrets out of what the process writes about itself: connector code logs and panics as it likes.

use std::{borrow::Cow, sync::Arc};

use parking_lot::RwLock;

/// The secrets that agents of this process have resolved. Clones share them.
///
/// None is forgotten before the process ends: a thread that was given up may still write what it was once told.
#[derive(Clone, Default)]
pub struct Redactor(Arc<RwLock<Vec<String>>>);

impl Redactor {
    /// The text with `***` in place of each secret.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let secrets = self.0.read();
        let mut clean = Cow::Borrowed(text);
        for secret in secrets.iter() {
            if clean.contains(secret.as_str()) {
                clean = Cow::Owned(clean.replace(secret.as_str(), "***"));
            }
        }
        clean
    }

    /// From now on these are secrets, too.
    pub(crate) fn learn(&self, secrets: &[String]) {
        let known = self.0.read();
        let is_new = |secret: &&String| !known.contains(secret);
        let new: Vec<String> = secrets.iter().filter(is_new).cloned().collect();
        drop(known);
        if new.is_empty() {
            return;
        }
        let mut known = self.0.write();
        known.extend(new);
        // Longest first: one secret may be part of another.
        known.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        known.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_is_left_out_by_every_clone() {
        let redactor = Redactor::default();
        let other = redactor.clone();
        assert!(matches!(other.redact("hunter2"), Cow::Borrowed("hunter2")));
        redactor.learn(&["hunter2".into(), "hunter22".into()]);
        redactor.learn(&["hunter2".into()]);
        assert_eq!(
            other.redact("a hunter22, a hunter2 and a hunter"),
            "a ***, a *** and a hunter"
        );
    }
}
