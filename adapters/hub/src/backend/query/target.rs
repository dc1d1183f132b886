//! Which twins something is for: the condition of a job or of a configuration.

use super::QueryError;
use super::expression::Expression;
use super::parser::Parser;
use super::row::TwinRow;
use crate::backend::applications::Applications;
use crate::engine::record_scan::Seen;

/// A condition over the twins of devices or of modules.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    is_for_modules: bool,
    /// `None`: all of them.
    condition: Option<Expression>,
}

impl Target {
    /// Reads `*` for all devices, a condition over devices, or `FROM devices.modules [WHERE condition]`.
    ///
    /// # Errors
    /// [`QueryError`] with the place of the first character that does not fit.
    pub(crate) fn read(text: &str) -> Result<Self, QueryError> {
        let mut parser = Parser::new(text)?;
        let mut is_for_modules = false;
        let mut has_condition = true;
        if parser.take_keyword("FROM") {
            parser.expect_keyword("devices")?;
            is_for_modules = parser.take_symbol(".");
            if is_for_modules {
                parser.expect_keyword("modules")?;
            }
            has_condition = parser.take_keyword("WHERE");
        } else if parser.take_symbol("*") {
            has_condition = false;
        }
        let condition = if has_condition { Some(parser.expression()?) } else { None };
        parser.expect_end()?;
        Ok(Self { is_for_modules, condition })
    }

    /// Whether this twin is one of those that are meant.
    pub(crate) fn wants(&self, seen: Seen<'_>, applications: &Applications) -> bool {
        let row = TwinRow::new(seen, applications);
        row.is_module() == self.is_for_modules
            && self.condition.as_ref().is_none_or(|condition| condition.holds(&row) == Some(true))
    }

    /// Whether it is about the twins of modules.
    pub(crate) const fn is_for_modules(&self) -> bool {
        self.is_for_modules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_all_devices_some_of_them_or_modules() {
        for (text, modules, has_condition) in [
            ("*", false, false),
            ("tags.site = 'north' AND properties.reported.version < 3", false, true),
            ("FROM devices WHERE tags.site = 'north'", false, true),
            ("from devices.modules where moduleId = 'm'", true, true),
            ("from devices.modules", true, false),
        ] {
            let target = Target::read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                (target.is_for_modules, target.condition.is_some()),
                (modules, has_condition),
                "{text}"
            );
        }
        for (text, said) in [
            ("", "expected a property, found the end"),
            ("tags.a = ", "character 10: expected a property, found the end"),
            ("* AND a = 1", "character 3: expected the end, found `AND`"),
            ("from devices.jobs", "character 14: expected modules, found `jobs`"),
            ("SELECT * FROM devices", "expected a property, found `SELECT`"),
        ] {
            let error = Target::read(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
