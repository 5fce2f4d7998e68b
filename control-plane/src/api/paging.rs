//! Pages in order of name. A token holds the last name and a hash of what was asked for, so that it fits no other question.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use gantry_proto::error::{Reason, Refusal};
use prost::Message;
use sha2::{Digest, Sha256};

const DEFAULT_SIZE: usize = 50;
const MAX_SIZE: usize = 1000;
/// Clients refuse messages over 4 MiB.
pub(super) const MAX_PAGE_BYTES: usize = 2 << 20;

/// What a page must contain.
#[derive(Debug)]
pub(super) struct Paging {
    size: usize,
    question: [u8; 8],
    /// Names up to this one were on earlier pages.
    pub(super) after: Option<String>,
}

impl Paging {
    /// `question`: all that the answer depends on but the page.
    pub(super) fn parse(size: i32, token: &str, question: &[&str]) -> Result<Self, Refusal> {
        let size = match usize::try_from(size) {
            Err(_) => {
                return Err(Refusal::new(Reason::InvalidField, "page_size is negative")
                    .field("page_size", "must be 0 or more; 0 means the default"));
            }
            Ok(0) => DEFAULT_SIZE,
            Ok(n) => n.min(MAX_SIZE),
        };
        let mut hash = Sha256::new();
        for part in question {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let mut question = [0; 8];
        question.copy_from_slice(&digest[..8]);
        let after = if token.is_empty() {
            None
        } else {
            Some(open(token, question)?)
        };
        Ok(Self {
            size,
            question,
            after,
        })
    }

    /// Takes items in order until the page is full; returns them with the token of the next page.
    pub(super) fn cut<T: Message>(&self, items: impl Iterator<Item = (String, T)>) -> (Vec<T>, String) {
        let mut page = Vec::new();
        let mut bytes = 0;
        let mut last = String::new();
        for (name, item) in items {
            let length = item.encoded_len() + 8;
            if page.len() == self.size || (!page.is_empty() && bytes + length > MAX_PAGE_BYTES) {
                return (page, self.token(&last));
            }
            bytes += length;
            last = name;
            page.push(item);
        }
        (page, String::new())
    }

    fn token(&self, last: &str) -> String {
        URL_SAFE_NO_PAD.encode([&self.question[..], last.as_bytes()].concat())
    }
}

fn open(token: &str, question: [u8; 8]) -> Result<String, Refusal> {
    let bad = |why: &str| {
        Refusal::new(
            Reason::InvalidPageToken,
            format!("the page token cannot be used: {why}"),
        )
        .field(
            "page_token",
            "take it unchanged from the previous answer to the same question, or leave it empty",
        )
    };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad("it is damaged"))?;
    let (hash, name) = bytes.split_at_checked(8).ok_or_else(|| bad("it is damaged"))?;
    if hash != question {
        return Err(bad("it belongs to another question"));
    }
    String::from_utf8(name.to_vec()).map_err(|_| bad("it is damaged"))
}

#[cfg(test)]
mod tests {
    use gantry_proto::v1::Queue;

    use super::*;

    fn items(n: usize, bytes: usize) -> impl Iterator<Item = (String, Queue)> {
        (0..n).map(move |i| {
            (
                format!("n{i:04}"),
                Queue {
                    topic: "x".repeat(bytes),
                    ..Queue::default()
                },
            )
        })
    }

    #[test]
    fn pages_follow_each_other_and_end() {
        let first = Paging::parse(3, "", &["f"]).unwrap();
        let (page, token) = first.cut(items(4, 1));
        assert_eq!(page.len(), 3);
        let next = Paging::parse(3, &token, &["f"]).unwrap();
        assert_eq!(next.after.as_deref(), Some("n0002"));
        let (page, token) = next.cut(items(4, 1).skip(3));
        assert_eq!((page.len(), token.as_str()), (1, ""));
    }

    #[test]
    fn a_page_is_cut_by_bytes_too() {
        let (page, token) = Paging::parse(1000, "", &[]).unwrap().cut(items(10, 1 << 20));
        assert_eq!(page.len(), 1);
        assert!(!token.is_empty());
    }

    #[test]
    fn a_token_fits_only_its_question() {
        let (_, token) = Paging::parse(1, "", &["state=RUNNING"]).unwrap().cut(items(2, 1));
        assert!(Paging::parse(1, &token, &["state=PAUSED"]).is_err());
        assert!(Paging::parse(1, "%%%", &[]).is_err());
        assert!(Paging::parse(-1, "", &[]).is_err());
    }
}
