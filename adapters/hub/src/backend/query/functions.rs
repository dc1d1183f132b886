//! The functions of the query language: those of twin queries, and those that message routes have besides.

use serde_json::{Number, Value};

use super::values::{number_of, of_f64};

/// Longest text that a function gives, in bytes; as many as a twin may have. A longer one is undefined: a query of a few
/// kilobytes cannot make the hub write megabytes for each twin.
const TEXT_MAX: usize = 32 * 1024;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    IsDefined,
    IsNull,
    IsBool,
    IsNumber,
    IsString,
    IsArray,
    IsObject,
    IsPrimitive,
    AsNumber,
    StartsWith,
    EndsWith,
    Contains,
    IndexOf,
    Concat,
    Length,
    Lower,
    Upper,
    Substring,
    Abs,
    Ceiling,
    Exp,
    Floor,
    Power,
    Sign,
    Sqrt,
    Square,
}

/// One row: the name, and how many arguments the function has at least and at most.
struct Signature(&'static str, Function, usize, usize);

/// All functions, as an error lists them. Azure spells some of them differently from document to document.
const FUNCTIONS: [Signature; 28] = [
    Signature("IS_DEFINED", Function::IsDefined, 1, 1),
    Signature("IS_NULL", Function::IsNull, 1, 1),
    Signature("IS_BOOL", Function::IsBool, 1, 1),
    Signature("IS_NUMBER", Function::IsNumber, 1, 1),
    Signature("IS_STRING", Function::IsString, 1, 1),
    Signature("IS_ARRAY", Function::IsArray, 1, 1),
    Signature("IS_OBJECT", Function::IsObject, 1, 1),
    Signature("IS_PRIMITIVE", Function::IsPrimitive, 1, 1),
    Signature("AS_NUMBER", Function::AsNumber, 1, 1),
    Signature("STARTSWITH", Function::StartsWith, 2, 2),
    Signature("STARTS_WITH", Function::StartsWith, 2, 2),
    Signature("ENDSWITH", Function::EndsWith, 2, 2),
    Signature("ENDS_WITH", Function::EndsWith, 2, 2),
    Signature("CONTAINS", Function::Contains, 2, 2),
    Signature("INDEX_OF", Function::IndexOf, 2, 2),
    Signature("CONCAT", Function::Concat, 2, usize::MAX),
    Signature("LENGTH", Function::Length, 1, 1),
    Signature("LOWER", Function::Lower, 1, 1),
    Signature("UPPER", Function::Upper, 1, 1),
    Signature("SUBSTRING", Function::Substring, 2, 3),
    Signature("ABS", Function::Abs, 1, 1),
    Signature("CEILING", Function::Ceiling, 1, 1),
    Signature("EXP", Function::Exp, 1, 1),
    Signature("FLOOR", Function::Floor, 1, 1),
    Signature("POWER", Function::Power, 2, 2),
    Signature("SIGN", Function::Sign, 1, 1),
    Signature("SQRT", Function::Sqrt, 1, 1),
    Signature("SQUARE", Function::Square, 1, 1),
];

impl Function {
    /// The function of a name, in any case of letters, for so many arguments.
    ///
    /// # Errors
    /// What is wrong with the call, in words.
    pub(super) fn of_call(name: &str, count: usize) -> Result<Self, String> {
        let found = FUNCTIONS.iter().find(|signature| signature.0.eq_ignore_ascii_case(name));
        let Some(Signature(_, function, least, most)) = found else {
            let names: Vec<&str> = FUNCTIONS.iter().map(|signature| signature.0).collect();
            return Err(format!("there is no function {name}; there are {}", names.join(", ")));
        };
        let has = match (*least, *most) {
            (least, most) if (least..=most).contains(&count) => return Ok(*function),
            (least, usize::MAX) => format!("at least {least}"),
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least} to {most}"),
        };
        Err(format!("{name} has {has} arguments, not {count}"))
    }

    /// The value for these arguments, each `None` where it is undefined; `None` where the function is not defined for them.
    pub(super) fn apply(self, arguments: &[Option<&Value>]) -> Option<Value> {
        let first = arguments.first().copied().flatten();
        if self == Self::IsDefined {
            return Some(first.is_some().into());
        }
        let (first, second) = (first?, arguments.get(1).copied().flatten());
        match self {
            Self::IsDefined => None,
            Self::IsNull => Some(first.is_null().into()),
            Self::IsBool => Some(first.is_boolean().into()),
            Self::IsNumber => Some(first.is_number().into()),
            Self::IsString => Some(first.is_string().into()),
            Self::IsArray => Some(first.is_array().into()),
            Self::IsObject => Some(first.is_object().into()),
            Self::IsPrimitive => Some((!first.is_array() && !first.is_object()).into()),
            Self::AsNumber => as_number(first),
            Self::StartsWith => Some(first.as_str()?.starts_with(second?.as_str()?).into()),
            Self::EndsWith => Some(first.as_str()?.ends_with(second?.as_str()?).into()),
            Self::Contains => Some(first.as_str()?.contains(second?.as_str()?).into()),
            Self::IndexOf => Some(index_of(first.as_str()?, second?.as_str()?).into()),
            Self::Concat => concat(arguments),
            Self::Length => Some(first.as_str()?.chars().count().into()),
            Self::Lower => bounded(first.as_str()?.to_lowercase()),
            Self::Upper => bounded(first.as_str()?.to_uppercase()),
            Self::Substring => substring(first.as_str()?, second?, arguments.get(2).copied()),
            Self::Power => of_f64(first.as_f64()?.powf(second?.as_f64()?)),
            Self::Abs | Self::Ceiling | Self::Exp | Self::Floor | Self::Sign | Self::Sqrt | Self::Square => {
                self.of_number(first.as_number()?)
            }
        }
    }

    /// Mathematical functions of one number. A whole number stays one, as long as JSON has one of that size.
    fn of_number(self, number: &Number) -> Option<Value> {
        if let Some(whole) = number.as_i128() {
            match self {
                Self::Abs => return Some(number_of(whole.abs())),
                Self::Ceiling | Self::Floor => return Some(Value::Number(number.clone())),
                Self::Sign => return Some(number_of(whole.signum())),
                Self::Square => {
                    if let Some(square) = whole.checked_mul(whole) {
                        return Some(number_of(square));
                    }
                }
                _ => {}
            }
        }
        let number = number.as_f64()?;
        of_f64(match self {
            Self::Abs => number.abs(),
            Self::Ceiling => number.ceil(),
            Self::Exp => number.exp(),
            Self::Floor => number.floor(),
            Self::Sign if number == 0.0 => 0.0,
            Self::Sign => number.signum(),
            Self::Sqrt => number.sqrt(),
            Self::Square => number * number,
            _ => return None,
        })
    }
}

fn as_number(value: &Value) -> Option<Value> {
    match value {
        Value::Number(_) => Some(value.clone()),
        Value::String(text) => serde_json::from_str::<Number>(text.trim()).ok().map(Value::Number),
        _ => None,
    }
}

/// In characters, from 0; -1 where it is not there.
fn index_of(text: &str, part: &str) -> i64 {
    let before = text.find(part).and_then(|at| text.get(..at));
    before.map_or(-1, |before| i64::try_from(before.chars().count()).unwrap_or(i64::MAX))
}

fn concat(parts: &[Option<&Value>]) -> Option<Value> {
    let mut text = String::new();
    for part in parts {
        let part = part.as_ref()?.as_str()?;
        if text.len().saturating_add(part.len()) > TEXT_MAX {
            return None;
        }
        text.push_str(part);
    }
    Some(text.into())
}

/// So many characters from this one on, which is counted from 0; all that follow where no number is given.
fn substring(text: &str, start: &Value, length: Option<Option<&Value>>) -> Option<Value> {
    let start = usize::try_from(start.as_u64()?).ok()?;
    let rest = text.chars().skip(start);
    match length {
        None => Some(rest.collect::<String>().into()),
        Some(length) => {
            let length = usize::try_from(length?.as_u64()?).ok()?;
            Some(rest.take(length).collect::<String>().into())
        }
    }
}

fn bounded(text: String) -> Option<Value> {
    (text.len() <= TEXT_MAX).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(name: &str, arguments: &Value) -> Option<Value> {
        let arguments: Vec<Option<&Value>> = arguments.as_array().unwrap().iter().map(Some).collect();
        Function::of_call(name, arguments.len()).unwrap().apply(&arguments)
    }

    #[test]
    fn each_function_gives_what_the_documents_say() {
        for (name, arguments, expected) in [
            ("startswith", json!(["abc", "ab"]), json!(true)),
            ("STARTS_WITH", json!(["abc", "bc"]), json!(false)),
            ("ENDS_WITH", json!(["abc", "ab"]), json!(false)),
            ("CONTAINS", json!(["abc", "b"]), json!(true)),
            ("INDEX_OF", json!(["äbc", "c"]), json!(2)),
            ("INDEX_OF", json!(["abc", "x"]), json!(-1)),
            ("CONCAT", json!(["a", "b", "c"]), json!("abc")),
            ("LENGTH", json!(["äbc"]), json!(3)),
            ("LOWER", json!(["AbC"]), json!("abc")),
            ("UPPER", json!(["abc"]), json!("ABC")),
            ("SUBSTRING", json!(["äbcd", 1]), json!("bcd")),
            ("SUBSTRING", json!(["abcd", 1, 2]), json!("bc")),
            ("SUBSTRING", json!(["abcd", 9]), json!("")),
            ("AS_NUMBER", json!(["1.5"]), json!(1.5)),
            ("AS_NUMBER", json!([7]), json!(7)),
            ("IS_NULL", json!([null]), json!(true)),
            ("IS_STRING", json!([1]), json!(false)),
            ("IS_PRIMITIVE", json!([1]), json!(true)),
            ("IS_OBJECT", json!([{}]), json!(true)),
            ("IS_ARRAY", json!([[]]), json!(true)),
            ("IS_BOOL", json!([false]), json!(true)),
            ("IS_NUMBER", json!(["1"]), json!(false)),
            ("ABS", json!([-3]), json!(3)),
            ("ABS", json!([i64::MIN]), json!(9_223_372_036_854_775_808_u64)),
            ("CEILING", json!([1.2]), json!(2)),
            ("FLOOR", json!([-1.2]), json!(-2)),
            ("SIGN", json!([-0.5]), json!(-1)),
            ("SIGN", json!([0.0]), json!(0)),
            ("SQRT", json!([16]), json!(4)),
            ("SQUARE", json!([12]), json!(144)),
            ("POWER", json!([2, 10]), json!(1024)),
            ("EXP", json!([0]), json!(1)),
        ] {
            assert_eq!(call(name, &arguments), Some(expected), "{name}{arguments}");
        }
    }

    #[test]
    fn what_a_function_is_not_made_for_is_undefined() {
        for (name, arguments) in [
            ("CONTAINS", json!([1, "b"])),
            ("AS_NUMBER", json!(["1 kg"])),
            ("AS_NUMBER", json!(["NaN"])),
            ("LENGTH", json!([[1]])),
            ("SUBSTRING", json!(["abc", -1])),
            ("SUBSTRING", json!(["abc", 1, "x"])),
            ("SQRT", json!([-1])),
            ("EXP", json!([1e9])),
            ("POWER", json!(["2", 2])),
            ("CONCAT", json!(["a".repeat(TEXT_MAX), "b"])),
        ] {
            assert_eq!(call(name, &arguments), None, "{name}");
        }
        assert_eq!(Function::Concat.apply(&[Some(&json!("a")), None]), None);
        assert_eq!(Function::IsDefined.apply(&[None]), Some(json!(false)));
    }

    #[test]
    fn a_wrong_call_is_told_what_would_be_right() {
        let error = |name, count| Function::of_call(name, count).unwrap_err();
        assert!(error("DROP", 1).contains("no function DROP; there are IS_DEFINED, "));
        assert!(error("substring", 4).contains("2 to 3 arguments, not 4"));
        assert!(error("CONCAT", 1).contains("at least 2 arguments"));
        assert!(error("IS_NULL", 2).contains("has 1 arguments, not 2"));
    }
}
