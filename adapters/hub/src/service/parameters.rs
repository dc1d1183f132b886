//! What a request says in the path of its endpoint.

/// The parameters of a path, in the order in which they stand there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// The value of a parameter.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Where the path of an endpoint is the one of a request: its parameters, how many words it has, and its path with the
    /// words spelled as in the table. `segments` are decoded.
    pub(super) fn of(path: &'static str, segments: &[&str]) -> Option<(Self, usize, String)> {
        let mut words = path.split('/').skip(1);
        let (mut parameters, mut literal, mut canonical) = (Vec::new(), 0_usize, String::new());
        for (at, segment) in segments.iter().enumerate() {
            let word = words.next()?;
            canonical.push('/');
            match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
                // The rest of the path, whatever slashes it has.
                Some(name) if let Some(name) = name.strip_prefix('*') => {
                    let rest = segments.get(at..).unwrap_or_default().join("/");
                    canonical.push_str(&rest);
                    parameters.push((name, rest));
                    return Some((Self(parameters), literal, canonical));
                }
                Some(_) if segment.is_empty() => return None,
                Some(name) => {
                    parameters.push((name, (*segment).to_owned()));
                    canonical.push_str(segment);
                }
                None if word.eq_ignore_ascii_case(segment) => {
                    literal = literal.saturating_add(1);
                    canonical.push_str(word);
                }
                None => return None,
            }
        }
        words.next().is_none().then_some((Self(parameters), literal, canonical))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_any_case_and_parameters_as_they_are() {
        let found = |path, segments: &[&str]| {
            Parameters::of(path, segments).map(|(parameters, literal, path)| {
                (parameters.get("id").unwrap_or_default().to_owned(), literal, path)
            })
        };
        let expected = Some(("Ab".to_owned(), 3, "/devices/Ab/messages/events".to_owned()));
        assert_eq!(
            found("/devices/{id}/messages/events", &["Devices", "Ab", "messages", "EVENTS"]),
            expected
        );
        let rest = found("/a/{*id}", &["a", "b", "", "C"]);
        assert_eq!(rest, Some(("b//C".to_owned(), 1, "/a/b//C".to_owned())));
        assert_eq!(found("/devices/{id}", &["devices"]), None);
        assert_eq!(found("/devices/{id}", &["devices", ""]), None);
        assert_eq!(found("/devices/{id}", &["devices", "a", "b"]), None);
        assert_eq!(found("/devices", &["devices"]).map(|found| found.1), Some(1));
    }
}
