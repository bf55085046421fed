//! Types that hold a secret and must not show it.

/// Implements `Debug` for a type with a secret: only the fields that are named are shown, so that
/// whoever prints it, or something that holds it, prints no token, key or password.
#[macro_export]
macro_rules! hides {
    ($type:ident $(<$life:lifetime>)? $(, $field:ident)* $(,)?) => {
        impl $(<$life>)? ::core::fmt::Debug for $type $(<$life>)? {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(stringify!($type))
                    $(.field(stringify!($field), &self.$field))*
                    .finish_non_exhaustive()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    struct Login<'a> {
        name: &'a str,
        password: String,
    }
    hides!(Login<'a>, name);

    enum Proof {
        Token(String),
    }
    hides!(Proof);

    #[test]
    fn only_what_is_named_is_shown() {
        let login = Login { name: "ann", password: "hunter2".to_owned() };
        assert_eq!(format!("{login:?} {}", login.password.len()), "Login { name: \"ann\", .. } 7");
        let proof = Proof::Token("hunter2".to_owned());
        let Proof::Token(token) = &proof;
        assert_eq!(format!("{proof:?} {}", token.len()), "Proof { .. } 7");
    }
}
