//! What to do with a file and its path. No I/O, no clock.

use std::time::Duration;

use super::position::Place;

/// A path that has been without a file for so long gives its renamed file up.
const RENAMED_HELD: Duration = Duration::from_secs(60);

/// What a look at a file that was read to its end, and at its path, has shown.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// Size on disk.
    pub(super) size: u64,
    /// Up to where it was read.
    pub(super) consumed: u64,
    /// Whether it begins as it did.
    pub(super) same_head: bool,
    /// Whether it still has a name.
    pub(super) linked: bool,
    /// Whether the beginning of a line waits for its end.
    pub(super) has_rest: bool,
    /// What is at its path.
    pub(super) path: AtPath,
    /// How long it has not grown.
    pub(super) quiet: Duration,
    /// How long `path` has been what it is.
    pub(super) path_for: Duration,
    /// Whether more files are open than should be.
    pub(super) crowded: bool,
}

/// What is at the path of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtPath {
    /// The file itself.
    Same,
    /// Another file with something in it, which nobody else reads.
    Other,
    /// An empty file, or one that is read for another path or has been read: nothing to go over to.
    Idle,
    /// Nothing.
    Nothing,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing has happened.
    Wait,
    /// It has grown.
    Read,
    /// It was cut off or written anew: read it from its beginning.
    Anew,
    /// Send the beginning of a line as it is.
    SendRest,
    /// Go over to the file that has taken its path.
    Leave,
    /// Close it; it can be found again.
    Close,
    /// It was deleted: nothing of it will be seen again.
    Forget,
}

/// Waiting times from the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) idle_flush: Duration,
    pub(super) rotate_wait: Duration,
}

pub(super) fn next(look: &Look, patience: Patience) -> Next {
    if look.size < look.consumed || !look.same_head {
        return Next::Anew;
    }
    if look.size > look.consumed {
        return Next::Read;
    }
    if look.path == AtPath::Other {
        let waited = look.quiet.min(look.path_for) >= patience.rotate_wait;
        return if waited { Next::Leave } else { Next::Wait };
    }
    let idle = look.quiet >= patience.idle_flush;
    if look.has_rest {
        return if idle { Next::SendRest } else { Next::Wait };
    }
    if idle && !look.linked {
        return Next::Forget;
    }
    let given_up = look.path == AtPath::Nothing && look.path_for >= RENAMED_HELD;
    if look.crowded || given_up {
        Next::Close
    } else {
        Next::Wait
    }
}

/// A file that may be the one of a stored position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) inode: u64,
    /// Whether it begins as the position says; true when the position says nothing.
    pub(super) fits: bool,
    /// Size on disk; none when it is compressed and so says nothing.
    pub(super) size: Option<u64>,
}

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// With the file at the path, at this byte.
    AtPath(u64),
    /// With the rest of the file that was renamed.
    Renamed(u64),
    /// With the file at the path from its beginning, because it is not what the position speaks of, for this reason.
    Anew(&'static str),
    /// There is no file yet.
    Wait,
    /// The position cannot be, for this reason.
    Refuse(String),
}

/// Where to begin with a stored position, given what is at the path and where the position's file has gone.
pub(super) fn begin(place: &Place, at_path: Option<Candidate>, renamed: Option<Candidate>) -> Begin {
    let reaches = |c: &Candidate| c.size.is_none_or(|size| size >= place.byte);
    let Some(id) = &place.file else {
        return match at_path {
            None if place.byte == 0 => Begin::Wait,
            None => Begin::Refuse("the file does not exist".into()),
            Some(c) if reaches(&c) => Begin::AtPath(place.byte),
            Some(c) => Begin::Refuse(format!("the file has only {} bytes", c.size.unwrap_or(0))),
        };
    };
    let renamed = renamed
        .filter(|c| c.fits && reaches(c))
        .map(|_| Begin::Renamed(place.byte));
    let Some(c) = at_path else {
        return renamed.unwrap_or(Begin::Wait);
    };
    let same = c.inode == id.inode;
    if c.fits && reaches(&c) && (same || renamed.is_none()) {
        return Begin::AtPath(place.byte);
    }
    renamed.unwrap_or(Begin::Anew(if same {
        "the file was cut off or written anew while nobody read it"
    } else {
        "another file has taken the path while nobody read it, and the earlier one is gone"
    }))
}

#[cfg(test)]
mod tests {
    use super::{super::position::*, *};

    const SECOND: Duration = Duration::from_secs(1);
    const PATIENCE: Patience = Patience {
        idle_flush: Duration::from_secs(5),
        rotate_wait: SECOND,
    };

    fn look() -> Look {
        Look {
            size: 100,
            consumed: 100,
            same_head: true,
            linked: true,
            has_rest: false,
            path: AtPath::Same,
            quiet: Duration::ZERO,
            path_for: Duration::ZERO,
            crowded: false,
        }
    }

    #[test]
    fn what_is_done_with_an_open_file() {
        let is = |look: Look, wanted| assert_eq!(next(&look, PATIENCE), wanted, "{look:?}");
        let (quiet, path_for) = (SECOND * 5, SECOND * 60);
        is(look(), Next::Wait);
        is(Look { size: 101, ..look() }, Next::Read);
        is(Look { size: 99, ..look() }, Next::Anew);
        is(
            Look {
                size: 101,
                same_head: false,
                ..look()
            },
            Next::Anew,
        );
        is(
            Look {
                has_rest: true,
                ..look()
            },
            Next::Wait,
        );
        is(
            Look {
                has_rest: true,
                quiet,
                ..look()
            },
            Next::SendRest,
        );
        is(
            Look {
                path: AtPath::Other,
                quiet,
                ..look()
            },
            Next::Wait,
        );
        is(
            Look {
                path: AtPath::Other,
                path_for,
                ..look()
            },
            Next::Wait,
        );
        is(
            Look {
                path: AtPath::Other,
                quiet,
                path_for,
                has_rest: true,
                ..look()
            },
            Next::Leave,
        );
        is(
            Look {
                path: AtPath::Other,
                quiet,
                path_for,
                size: 101,
                ..look()
            },
            Next::Read,
        );
        is(
            Look {
                path: AtPath::Nothing,
                quiet,
                ..look()
            },
            Next::Wait,
        );
        is(
            Look {
                path: AtPath::Nothing,
                path_for,
                ..look()
            },
            Next::Close,
        );
        is(
            Look {
                path: AtPath::Nothing,
                quiet,
                path_for,
                has_rest: true,
                ..look()
            },
            Next::SendRest,
        );
        is(
            Look {
                path: AtPath::Nothing,
                quiet,
                linked: false,
                ..look()
            },
            Next::Forget,
        );
        is(
            Look {
                path: AtPath::Nothing,
                linked: false,
                ..look()
            },
            Next::Wait,
        );
        is(
            Look {
                path: AtPath::Idle,
                quiet,
                path_for,
                ..look()
            },
            Next::Wait,
        );
        is(
            Look {
                path: AtPath::Idle,
                quiet,
                linked: false,
                ..look()
            },
            Next::Forget,
        );
        is(
            Look {
                crowded: true,
                ..look()
            },
            Next::Close,
        );
        is(
            Look {
                crowded: true,
                has_rest: true,
                ..look()
            },
            Next::Wait,
        );
    }

    #[test]
    fn where_a_stored_position_leads() {
        let head = Head::of(b"x");
        let known = Place {
            byte: 50,
            file: Some(FileId {
                inode: 1,
                head,
                done: vec![],
            }),
        };
        let file = |inode, fits, size| {
            Some(Candidate {
                inode,
                fits,
                size: Some(size),
            })
        };
        let anew = |p, r| matches!(begin(&known, p, r), Begin::Anew(_));

        assert_eq!(begin(&known, file(1, true, 50), None), Begin::AtPath(50));
        assert_eq!(
            begin(&known, file(2, true, 60), None),
            Begin::AtPath(50),
            "copied or restored"
        );
        assert_eq!(
            begin(&known, file(2, true, 60), file(1, true, 60)),
            Begin::Renamed(50),
            "a like banner"
        );
        assert_eq!(
            begin(&known, file(2, false, 60), file(1, true, 60)),
            Begin::Renamed(50)
        );
        assert_eq!(begin(&known, None, file(1, true, 60)), Begin::Renamed(50));
        assert_eq!(begin(&known, None, None), Begin::Wait);
        assert!(anew(file(1, true, 49), None), "cut off");
        assert!(anew(file(1, false, 60), None), "written anew");
        assert!(anew(file(2, false, 60), None), "replaced");
        assert!(
            anew(file(2, false, 60), file(1, false, 60)),
            "the inode was used again"
        );
    }

    #[test]
    fn what_a_person_may_set() {
        let at = |byte, size: Option<u64>| {
            let c = size.map(|size| Candidate {
                inode: 1,
                fits: true,
                size: Some(size),
            });
            begin(&Place { byte, file: None }, c, None)
        };
        assert_eq!(at(5, Some(5)), Begin::AtPath(5));
        assert_eq!(at(0, None), Begin::Wait);
        assert!(matches!(at(6, Some(5)), Begin::Refuse(_)));
        assert!(matches!(at(6, None), Begin::Refuse(_)));
    }
}
