//! What reading a query is made of: the next token, and what was expected in its place.

use super::QueryError;
use super::expression::Path;
use super::lexer::{Lexeme, Token, tokens};

/// Longest text, in characters (Azure: "IoT Hub query language", limits of queries).
pub(super) const TEXT_MAX: usize = 8192;
/// How deep parentheses, NOT, signs and calls may be nested; it bounds the stack.
pub(super) const DEPTH_MAX: usize = 32;

/// The tokens of a text that were not taken yet.
pub(super) struct Parser {
    lexemes: std::iter::Peekable<std::vec::IntoIter<Lexeme>>,
    /// The place behind the last character.
    end: usize,
    /// Conditions of routes name elements of lists: `$body.readings[0].value`.
    pub(super) has_elements: bool,
}

impl Parser {
    /// At the begin of a text.
    ///
    /// # Errors
    /// [`QueryError`] where the text is too long, or is not made of tokens.
    pub(super) fn new(text: &str) -> Result<Self, QueryError> {
        let length = text.chars().count();
        if length > TEXT_MAX {
            let message = format!("expected at most {TEXT_MAX} characters, found {length}");
            return Err(QueryError::new(TEXT_MAX.saturating_add(1), message));
        }
        let lexemes = tokens(text)?.into_iter().peekable();
        Ok(Self { lexemes, end: length.saturating_add(1), has_elements: false })
    }

    pub(super) fn peek(&mut self) -> &Token {
        self.lexemes.peek().map_or(&Token::End, |lexeme| &lexeme.token)
    }

    pub(super) fn skip(&mut self) {
        self.lexemes.next();
    }

    pub(super) fn at(&mut self) -> usize {
        let end = self.end;
        self.lexemes.peek().map_or(end, |lexeme| lexeme.at)
    }

    pub(super) fn take_symbol(&mut self, symbol: &str) -> bool {
        self.lexemes
            .next_if(|lexeme| matches!(lexeme.token, Token::Symbol(found) if found == symbol))
            .is_some()
    }

    pub(super) fn take_keyword(&mut self, keyword: &str) -> bool {
        let is_it = |lexeme: &Lexeme| matches!(&lexeme.token, Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        self.lexemes.next_if(is_it).is_some()
    }

    pub(super) fn expect_symbol(&mut self, symbol: &str) -> Result<(), QueryError> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.wrong(&format!("`{symbol}`"))) }
    }

    pub(super) fn expect_keyword(&mut self, keyword: &str) -> Result<(), QueryError> {
        if self.take_keyword(keyword) { Ok(()) } else { Err(self.wrong(keyword)) }
    }

    pub(super) fn expect_end(&mut self) -> Result<(), QueryError> {
        if *self.peek() == Token::End { Ok(()) } else { Err(self.wrong("the end")) }
    }

    /// One or more, with commas between them.
    pub(super) fn list<T>(
        &mut self,
        one: impl Fn(&mut Self) -> Result<T, QueryError>,
    ) -> Result<Vec<T>, QueryError> {
        let mut list = vec![one(self)?];
        while self.take_symbol(",") {
            list.push(one(self)?);
        }
        Ok(list)
    }

    /// A property, or the name of a function.
    pub(super) fn path(&mut self) -> Result<Path, QueryError> {
        let mut path = vec![self.name(|word| !is_reserved(word))?];
        // Behind a dot, every word is a name: there are tags that are called `group`.
        while self.take_symbol(".") {
            path.push(self.name(|_| true)?);
        }
        let is = |path: &Path, index: usize, name: &str| {
            path.get(index).is_some_and(|found| found.eq_ignore_ascii_case(name))
        };
        // `devices.deviceId`, `devices.modules.moduleId` and `devices.jobs.jobId` are deviceId, moduleId and jobId.
        if path.len() > 1 && is(&path, 0, "devices") {
            path.remove(0);
            if path.len() > 1 && (is(&path, 0, "modules") || is(&path, 0, "jobs")) {
                path.remove(0);
            }
        }
        Ok(path)
    }

    /// A word that may be a name, or a name in double brackets.
    pub(super) fn name(&mut self, may_be: impl Fn(&str) -> bool) -> Result<String, QueryError> {
        let name = match self.peek() {
            Token::Word(name) if may_be(name) => name.clone(),
            Token::Name(name) => name.clone(),
            _ => return Err(self.wrong("a property")),
        };
        self.skip();
        Ok(name)
    }

    /// The error that something else was expected than what comes next.
    pub(super) fn wrong(&mut self, expected: &str) -> QueryError {
        let at = self.at();
        let found = match self.peek() {
            Token::End => "the end".to_owned(),
            Token::Word(text) | Token::Name(text) | Token::Text(text) => format!("`{}`", text.escape_debug()),
            Token::Number(number) => format!("`{number}`"),
            Token::Symbol(symbol) => format!("`{symbol}`"),
        };
        QueryError::new(at, format!("expected {expected}, found {found}"))
    }
}

/// Words that no property begins with, unless they stand in double brackets.
fn is_reserved(word: &str) -> bool {
    const RESERVED: [&str; 12] =
        ["SELECT", "TOP", "FROM", "WHERE", "GROUP", "BY", "AS", "AND", "OR", "NOT", "IN", "NIN"];
    RESERVED.iter().any(|reserved| word.eq_ignore_ascii_case(reserved))
}
