//! Twin sections: patches and differences fit together.

use devicebound::iothub::twin::{difference, merge};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value};

/// Any value that a section may hold, with few names, so that sections have names in common.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..3).prop_map(Value::from)];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            btree_map("[abc]", inner, 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn section() -> impl Strategy<Value = Map<String, Value>> {
    btree_map("[abc]", value(), 0..4).prop_map(|members| members.into_iter().collect())
}

proptest! {
    #![proptest_config(crate::cases(4096))]

    #[test]
    fn the_difference_of_two_sections_merged_into_the_one_gives_the_other(one in section(), other in section()) {
        let mut merged = one.clone();
        merge(&mut merged, &difference(&one, &other));
        prop_assert_eq!(merged, other);
    }

    #[test]
    fn a_difference_is_empty_where_nothing_differs(section in section()) {
        prop_assert!(difference(&section, &section).is_empty());
    }
}
