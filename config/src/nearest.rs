//! The known name that a wrong one was probably meant to be.

/// The nearest of some names, or none where none is near: one that ends in the wrong name after a dot (a forgotten prefix), else
/// the one with the fewest typing errors, at most a third of the length.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let wanted = name.to_ascii_lowercase();
    let ending = |candidate: &&str| {
        candidate
            .strip_suffix(wanted.as_str())
            .is_some_and(|head| head.ends_with(['.', '_']))
    };
    if let Some(candidate) = known.clone().find(ending) {
        return Some(candidate);
    }
    let most = (wanted.chars().count() / 3).max(1);
    known
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&wanted, &candidate.to_ascii_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    const KNOWN: [&str; 3] = ["source.topics", "source.start", "delivery.batch.max.events"];

    fn find(name: &str) -> Option<&'static str> {
        nearest(name, KNOWN.into_iter())
    }

    #[test]
    fn typing_errors_and_forgotten_prefixes_are_recognised() {
        assert_eq!(find("source.topic"), Some("source.topics"));
        assert_eq!(find("soruce.topics"), Some("source.topics"));
        assert_eq!(find("SOURCE.START"), Some("source.start"));
        assert_eq!(find("batch.max.events"), Some("delivery.batch.max.events"));
        assert_eq!(
            find("delivery.batch.maxevents"),
            Some("delivery.batch.max.events")
        );
    }

    #[test]
    fn what_is_far_from_everything_has_no_nearest() {
        assert_eq!(find("bootstrap.servers"), None);
        assert_eq!(find("x"), None);
        assert_eq!(find(""), None);
    }
}
