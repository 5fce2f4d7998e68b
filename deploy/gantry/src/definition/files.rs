//! Definitions of several files and directories.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{Definition, read};
use crate::{
    failure::{Exit, Failure},
    render::short,
};

const SUFFIXES: &[&str] = &["yaml", "yml", "json"];

/// Reads files, and of directories all files that end like definitions, in order of name. No name comes twice.
pub(crate) fn read_all(paths: &[PathBuf], recursive: bool) -> Result<Vec<Definition>, Failure> {
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            all.extend(read(path)?);
            continue;
        }
        let mut files = Vec::new();
        gather(path, recursive, &mut files)?;
        if files.is_empty() {
            return Err(
                Failure::new(Exit::Refused, "the directory holds no definition file")
                    .at(path.display().to_string())
                    .fix(
                        "give a directory with files that end with .yaml, .yml or .json, or add --recursive",
                    ),
            );
        }
        for file in files {
            all.extend(read(&file)?);
        }
    }
    let mut places: BTreeMap<&str, &str> = BTreeMap::new();
    for d in &all {
        let name = short(&d.connector.name);
        if let Some(first) = places.insert(name, &d.place) {
            return Err(Failure::new(Exit::Refused, format!("{name} is defined twice"))
                .at(first)
                .at(&d.place)
                .fix("keep one of both"));
        }
    }
    Ok(all)
}

fn gather(dir: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let bad = |e: std::io::Error| {
        Failure::new(Exit::Refused, format!("cannot read the directory: {e}"))
            .at(dir.display().to_string())
            .fix("give a directory that can be read")
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(bad)? {
        paths.push(entry.map_err(bad)?.path());
    }
    paths.sort();
    for path in paths {
        let hidden = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            if recursive {
                gather(&path, recursive, files)?;
            }
        } else if path.extension().is_some_and(|e| SUFFIXES.iter().any(|s| e == *s)) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_read_in_order_and_names_come_once() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("b.yml", "name: b\n");
        write("a.yaml", "name: a1\n---\nname: a2\n");
        write("c.json", "{\"name\": \"c\"}");
        write("readme.md", "nothing");
        write(".hidden.yaml", "name: hidden\n");
        write("below/d.yaml", "name: d\n");
        let root = [dir.path().to_owned()];
        let names = |recursive| -> Vec<String> {
            let all = read_all(&root, recursive).unwrap();
            all.into_iter().map(|d| d.connector.name).collect()
        };
        assert_eq!(names(false), ["a1", "a2", "b", "c"]);
        assert_eq!(names(true), ["a1", "a2", "b", "d", "c"]);

        write("z.yaml", "# again\nname: connectors/b\n");
        let failure = read_all(&root, false).err().unwrap().to_string();
        for part in ["b is defined twice", "b.yml:1", "z.yaml:1"] {
            assert!(failure.contains(part), "{failure}");
        }
        let empty = tempfile::tempdir().unwrap();
        let failure = read_all(&[empty.path().to_owned()], false)
            .err()
            .unwrap()
            .to_string();
        assert!(failure.contains("no definition file"), "{failure}");
    }
}
