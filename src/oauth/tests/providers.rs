use crate::oauth::BodyTemplate;
use crate::oauth::providers::*;

#[test]
fn the_readme_lists_all() {
    let readme = include_str!("../../../README.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let names: Vec<_> = PROVIDERS.iter().map(|provider| provider.name).collect();
    let (last, others) = names.split_last().unwrap();
    let sentence = format!("There are presets for {} and {last}.", others.join(", "));
    assert!(readme.contains(&sentence), "{sentence}");
}

#[test]
fn every_row_is_whole() {
    assert!(PROVIDERS.len() >= 38, "{}", PROVIDERS.len());
    assert!(PROVIDERS.is_sorted_by(|a, b| a.name < b.name), "by name, each once");
    for provider in PROVIDERS {
        let name = provider.name;
        let part = provider.place.as_ref().map_or("", |place| match place {
            Placeholder { key: "issuer", .. } => "https://part",
            _ => place.default.unwrap_or("part"),
        });
        let others =
            [provider.authorization_endpoint, provider.device_endpoint, provider.revocation_endpoint];
        for endpoint in others.into_iter().flatten().chain([provider.token_endpoint]) {
            let url: url::Url = provider.endpoint(endpoint, part).parse().unwrap();
            assert!(url.scheme() == "https" && url.host().is_some(), "{name}");
            assert!(!url.as_str().contains(['{', '}']), "{name}: {url}");
        }
        if let Some(body) = provider.body {
            BodyTemplate::parse(body, &[]).unwrap();
        }
        assert!(!provider.source.is_empty(), "{name}");
    }
}
