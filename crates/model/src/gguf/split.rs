//! Models that are split into several files, `NAME-00001-of-00003.gguf` and so on.
//!
//! The first part has the metadata of the model. Every part says its number (`split.no`, from 0),
//! how many there are (`split.count`) and how many tensors all of them have together
//! (`split.tensors.count`).

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::part::Part;
use crate::Error;
use crate::load::Mapped;

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// The most parts that a name has digits for.
const MOST_PARTS: u64 = 99_999;

/// What a file's name says of its place among others.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    stem: &'a str,
    /// From 1.
    number: u64,
    count: u64,
}

impl<'a> Place<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(number) || !digits(count) {
            return None;
        }
        Some(Self { stem, number: number.parse().ok()?, count: count.parse().ok()? })
    }

    fn name(&self) -> String {
        format!("{}-{:05}-of-{:05}.gguf", self.stem, self.number, self.count)
    }
}

/// The last part of a path, for people to read.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Opens the file at `path` and, if it is a part, all others.
pub(super) fn open_all(path: &Path) -> Result<Vec<Part>, Error> {
    let given = Part::read(path, Mapped::open(path)?)?;
    let Some(split) = Split::of(&given)? else { return Ok(vec![given]) };
    let own_name = name(path);
    let expected = |stem| Place { stem, number: split.number + 1, count: split.count }.name();
    let place = Place::of(&own_name).filter(|place| expected(place.stem) == own_name);
    let Some(Place { stem, count, .. }) = place else {
        let stem = Place::of(&own_name).map_or("NAME", |place| place.stem);
        let reason = format!(
            "is part {} of {}, whose name should be `{}`",
            split.number + 1,
            split.count,
            expected(stem)
        );
        return Err(Error::bad(path, NUMBER, reason));
    };
    let mut given = Some(given);
    let mut parts = Vec::new();
    for number in 1..=count {
        let part = match given.take_if(|_| number == split.number + 1) {
            Some(given) => given,
            None => open_part(&path.with_file_name(Place { stem, number, count }.name()))?,
        };
        check(&part, &Split { number: number - 1, ..split })?;
        parts.push(part);
    }
    let found: usize = parts.iter().map(|part| part.tensors.records.len()).sum();
    if split.tensors.is_some_and(|tensors| tensors != found as u64) {
        let expected = split.tensors.unwrap_or_default().to_string();
        let reason = format!("expected {expected} tensors in all parts together, found {found}");
        return Err(Error::bad(&parts[0].path, TENSORS, reason));
    }
    Ok(parts)
}

fn open_part(path: &Path) -> Result<Part, Error> {
    let bytes = Mapped::open(path).map_err(|error| match error {
        Error::NotFound { file } => {
            Error::bad(&file, "file", "this part of a split model is missing; download it too")
        }
        other => other,
    })?;
    Part::read(path, bytes)
}

/// Refuses one part alone.
pub(super) fn refuse_part(part: &Part) -> Result<(), Error> {
    let Some(split) = Split::of(part)? else { return Ok(()) };
    let reason = format!("is part {} of {} of a split model", split.number + 1, split.count);
    Err(Error::bad(&part.path, NUMBER, reason))
}

/// What a file says of itself.
#[derive(Clone, Copy)]
struct Split {
    /// From 0.
    number: u64,
    count: u64,
    tensors: Option<u64>,
}

impl Split {
    /// None for a whole model.
    fn of(part: &Part) -> Result<Option<Self>, Error> {
        let metadata = part.metadata();
        let count = metadata.find::<u64>(COUNT)?.unwrap_or(0);
        if count <= 1 {
            return Ok(None);
        }
        let wrong = |key, expected: String, found: u64| {
            Err(Error::config(&part.path, key, expected, found.to_string()))
        };
        if count > MOST_PARTS {
            return wrong(COUNT, format!("at most {MOST_PARTS}"), count);
        }
        let number = metadata.get::<u64>(NUMBER)?;
        if number >= count {
            return wrong(NUMBER, format!("less than {count} ({COUNT})"), number);
        }
        Ok(Some(Self { number, count, tensors: metadata.find(TENSORS)? }))
    }
}

/// Refuses a part that does not say `expected` of itself.
fn check(part: &Part, expected: &Split) -> Result<(), Error> {
    let wrong = |key, expected: u64, found: Option<u64>| {
        let found = found.map_or("nothing".into(), |found| found.to_string());
        Err(Error::config(&part.path, key, expected.to_string(), found))
    };
    let Some(found) = Split::of(part)? else { return wrong(COUNT, expected.count, None) };
    if found.count != expected.count {
        return wrong(COUNT, expected.count, Some(found.count));
    }
    if found.number != expected.number {
        return wrong(NUMBER, expected.number, Some(found.number));
    }
    match (expected.tensors, found.tensors) {
        (Some(tensors), other) if other != Some(tensors) => wrong(TENSORS, tensors, other),
        _ => Ok(()),
    }
}

/// Of each model among `files` the first file: what is not split stays as it is.
pub fn one_of_each(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.sort();
    let mut seen = HashSet::new();
    files.retain(|file| {
        let name = name(file);
        Place::of(&name).is_none_or(|place| seen.insert((place.stem.to_owned(), place.count)))
    });
    files
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kernels::WeightType;

    use super::super::Gguf;
    use super::super::write::{Header, NewValue, pad};
    use super::*;

    /// Writes part `number` (from 0) of `count` with one tensor of its own.
    fn write(directory: &Path, file: &str, change: impl FnOnce(&mut Content)) -> PathBuf {
        let mut content = Content { number: 0, count: 3, tensors: 3, tensor: "a" };
        change(&mut content);
        let mut header = Header::new();
        if content.number == 0 {
            header.put("general.architecture", "qwen3");
        }
        header.put(NUMBER, NewValue::U32(content.number));
        header.put(COUNT, NewValue::U32(content.count));
        header.put(TENSORS, NewValue::U32(content.tensors));
        header.declare(content.tensor, &[4], WeightType::F32);
        let mut bytes = header.bytes();
        bytes.extend([content.number as u8; 16]);
        pad(&mut bytes);
        let path = directory.join(file);
        fs::write(&path, bytes).unwrap();
        path
    }

    struct Content {
        number: u32,
        count: u32,
        tensors: u32,
        tensor: &'static str,
    }

    /// Three good parts.
    fn three() -> (tempfile::TempDir, [PathBuf; 3]) {
        let directory = tempfile::tempdir().unwrap();
        let paths = [0, 1, 2].map(|number| {
            let file = format!("m-{:05}-of-00003.gguf", number + 1);
            write(directory.path(), &file, |part| {
                (part.number, part.tensor) = (number, ["a", "b", "c"][number as usize]);
            })
        });
        (directory, paths)
    }

    #[track_caller]
    fn refused(path: &Path, part: &str) {
        let Err(error) = Gguf::open(path) else { panic!("{} was opened", path.display()) };
        let error = error.to_string();
        assert!(error.contains(part), "`{error}` does not say `{part}`");
    }

    #[test]
    fn any_part_opens_the_whole_model() {
        let (_directory, paths) = three();
        for path in &paths {
            let model = Gguf::open(path).unwrap();
            assert_eq!(model.path(), paths[0]);
            assert_eq!(model.files().collect::<Vec<_>>(), paths);
            assert_eq!(model.metadata().get::<&str>("general.architecture").unwrap(), "qwen3");
            let names: Vec<_> = model.tensors().map(|tensor| tensor.name.to_owned()).collect();
            assert_eq!(names, ["a", "b", "c"]);
            assert_eq!(model.tensor("c").unwrap().bytes, [2; 16]);
        }
    }

    // Bad file 113
    #[test]
    fn a_set_that_is_not_whole_is_refused_by_file_and_item() {
        let (directory, paths) = three();
        fs::remove_file(&paths[1]).unwrap();
        refused(&paths[0], "m-00002-of-00003.gguf: file: this part of a split model is missing");
        let second = |change: &dyn Fn(&mut Content), part: &str| {
            write(directory.path(), "m-00002-of-00003.gguf", |content| {
                (content.number, content.tensor) = (1, "b");
                change(content);
            });
            refused(&paths[2], part);
        };
        let name = "m-00002-of-00003.gguf: ";
        second(&|part| part.number = 2, &format!("{name}split.no: expected 1, found 2"));
        second(&|part| part.count = 4, &format!("{name}split.count: expected 3, found 4"));
        second(&|part| part.count = 0, &format!("{name}split.count: expected 3, found nothing"));
        second(&|part| part.number = 7, &format!("{name}split.no: expected less than 3"));
        second(&|part| part.tensors = 4, "split.tensors.count: expected 3, found 4");
        second(
            &|part| part.tensor = "a",
            &format!("{name}tensor `a`: is in m-00001-of-00003.gguf"),
        );
        fs::write(&paths[1], "GGUF").unwrap();
        refused(&paths[2], &format!("{name}header: the file is cut short"));
    }

    #[test]
    fn parts_and_their_names_must_agree() {
        let directory = tempfile::tempdir().unwrap();
        let lone = write(directory.path(), "model.gguf", |_| {});
        refused(&lone, "is part 1 of 3, whose name should be `NAME-00001-of-00003.gguf`");
        let swapped = write(directory.path(), "m-00002-of-00003.gguf", |_| {});
        refused(&swapped, "whose name should be `m-00001-of-00003.gguf`");
        let many = write(directory.path(), "m.gguf", |part| part.count = 100_000);
        refused(&many, "split.count: expected at most 99999");
    }

    #[test]
    fn tensors_are_counted_over_all_parts() {
        let (directory, _) = three();
        for (number, tensor) in [(0, "a"), (1, "b"), (2, "c")] {
            let file = format!("n-{:05}-of-00003.gguf", number + 1);
            write(directory.path(), &file, |part| {
                (part.number, part.tensor, part.tensors) = (number, tensor, 5);
            });
        }
        let path = directory.path().join("n-00001-of-00003.gguf");
        refused(&path, "expected 5 tensors in all parts together, found 3");
    }

    #[test]
    fn one_file_stands_for_a_set() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let files = ["b-00002-of-00002.gguf", "b-00001-of-00002.gguf", "a.gguf", "b-1-of-2.gguf"];
        let expected = ["a.gguf", "b-00001-of-00002.gguf", "b-1-of-2.gguf"];
        assert_eq!(one_of_each(paths(&files)), paths(&expected));
        // A set whose first part is missing is one too; opening it tells what it lacks.
        assert_eq!(one_of_each(paths(&files[..1])), paths(&files[..1]));
    }
}
