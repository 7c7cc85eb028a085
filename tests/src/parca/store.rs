//! What the stand-in keeps and what it answers from: profiles, uploads, and whatever it found wrong. Knows no transport.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tonic::Code;

use super::answer::Answer;
use super::executable::{Line, Recipe};
use super::ingest::{self, Place, StoredProfile};
use super::refusal::Refusal;
use super::selector::{ProfileType, Selector};
use super::uploads::Uploads;
use crate::generated::profilestore::WriteRawRequest;

/// A span of time in nanoseconds, both ends included.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub start: i64,
    pub end: i64,
}

impl Span {
    /// All of time.
    pub const ALL: Self = Self {
        start: i64::MIN,
        end: i64::MAX,
    };

    fn holds(self, nanos: i64) -> bool {
        self.start <= nanos && nanos <= self.end
    }
}

/// The server's memory.
#[derive(Debug, Default)]
pub struct Store {
    profiles: Vec<StoredProfile>,
    pub uploads: Uploads,
    /// How addresses of each build ID were sent: one way, or names are lost at random.
    recipes: BTreeMap<String, BTreeSet<Recipe>>,
    /// Hashes of label set and raw profile.
    seen: HashSet<u64>,
    /// Samples of raw profiles that came a second time.
    duplicates: i64,
    violations: BTreeSet<String>,
}

impl Store {
    /// Keeps a request's profiles, all or none.
    pub fn write(&mut self, request: &WriteRawRequest, now_nanos: i64) -> Result<(), Refusal> {
        let mut taken = Vec::new();
        for series in &request.series {
            let profiles = match ingest::profiles(series) {
                Ok(profiles) => profiles,
                Err(refusal) => {
                    self.violations.insert(refusal.message.clone());
                    return Err(refusal);
                }
            };
            taken.extend(profiles);
        }
        let mut profiles = taken.iter();
        for series in &request.series {
            for sample in &series.samples {
                let samples = profiles.next().map_or(0, StoredProfile::total);
                let mut hasher = DefaultHasher::new();
                for label in series.labels.iter().flat_map(|set| &set.labels) {
                    (&label.name, &label.value).hash(&mut hasher);
                }
                sample.raw_profile.hash(&mut hasher);
                if !self.seen.insert(hasher.finish()) {
                    self.duplicates += samples;
                }
            }
        }
        if !request.normalized && !request.series.is_empty() {
            // Servers before 0.22 would rebase the addresses once more.
            self.violations
                .insert("a request without `normalized`".to_owned());
        }
        for profile in taken {
            self.violations
                .extend(ingest::violations(&profile, now_nanos));
            for place in profile.samples.iter().flat_map(|sample| &sample.stack) {
                let Some(mapping) = &place.mapping else {
                    continue;
                };
                if place.lines.is_empty() && !mapping.build_id.is_empty() {
                    let recipes = self.recipes.entry(mapping.build_id.clone()).or_default();
                    if recipes.insert(mapping.recipe) && recipes.len() > 1 {
                        self.violations.insert(format!(
                            "{} is sent in {} ways: {recipes:?}",
                            mapping.build_id,
                            recipes.len()
                        ));
                    }
                }
            }
            self.profiles.push(profile);
        }
        Ok(())
    }

    /// Profiles in memory order.
    #[must_use]
    pub fn profiles(&self) -> &[StoredProfile] {
        &self.profiles
    }

    /// Samples kept so far, of all series.
    #[must_use]
    pub fn samples(&self) -> i64 {
        self.profiles.iter().map(StoredProfile::total).sum()
    }

    /// Samples of profiles that came once more: their answer was lost on its way.
    #[must_use]
    pub fn duplicates(&self) -> i64 {
        self.duplicates
    }

    /// All that was wrong although it was taken, and all that was refused.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.violations
            .iter()
            .chain(&self.uploads.violations)
            .cloned()
            .collect()
    }

    fn matching<'a>(
        &'a self,
        selector: &'a Selector,
        span: Span,
    ) -> impl Iterator<Item = &'a StoredProfile> {
        self.profiles.iter().filter(move |profile| {
            span.holds(profile.time_nanos)
                && selector.selects(&profile.profile_type, &profile.labels)
        })
    }

    /// All profiles of a span in one. Samples that are counts come back as time.
    pub fn merge(&mut self, query: &str, span: Span) -> Result<Answer, Refusal> {
        let selector = Selector::parse(query)?;
        let mut answer = Answer::new(&selector.profile_type, true, span.start);
        let profiles: Vec<StoredProfile> = self.matching(&selector, span).cloned().collect();
        let names = self.names(&profiles);
        for profile in &profiles {
            let factor = if answer.is_time() { profile.period } else { 1 };
            for sample in &profile.samples {
                answer.add(&sample.stack, &names, sample.value.saturating_mul(factor));
            }
        }
        Ok(answer)
    }

    /// The profile of one instant, by its millisecond.
    pub fn single(&mut self, query: &str, time_nanos: i64) -> Result<Answer, Refusal> {
        let selector = Selector::parse(query)?;
        let wanted = time_nanos.div_euclid(1_000_000);
        let profiles: Vec<StoredProfile> = self
            .matching(&selector, Span::ALL)
            .filter(|profile| profile.time_nanos.div_euclid(1_000_000) == wanted)
            .cloned()
            .collect();
        if profiles.is_empty() {
            return Err(Refusal::new(
                Code::NotFound,
                "could not find profile at requested time and selectors",
            ));
        }
        let names = self.names(&profiles);
        let mut answer = Answer::new(&selector.profile_type, false, wanted * 1_000_000);
        for sample in profiles.iter().flat_map(|profile| &profile.samples) {
            answer.add(&sample.stack, &names, sample.value);
        }
        Ok(answer)
    }

    /// The names of all places that came without, from what was uploaded. One address that can't be rebased costs its
    /// build ID all names.
    fn names(&mut self, profiles: &[StoredProfile]) -> BTreeMap<Arc<Place>, Vec<Line>> {
        let mut by_build_id: BTreeMap<&str, BTreeSet<&Arc<Place>>> = BTreeMap::new();
        for place in profiles
            .iter()
            .flat_map(|profile| &profile.samples)
            .flat_map(|sample| &sample.stack)
        {
            if let Some(mapping) = &place.mapping
                && place.lines.is_empty()
                && place.address != 0
                && !mapping.build_id.is_empty()
            {
                by_build_id
                    .entry(mapping.build_id.as_str())
                    .or_default()
                    .insert(place);
            }
        }
        let mut names = BTreeMap::new();
        for (build_id, places) in by_build_id {
            let Some(executable) = self.uploads.executable(build_id) else {
                continue;
            };
            let own: Result<Vec<(Arc<Place>, u64)>, String> = places
                .into_iter()
                .map(|place| {
                    let recipe = place
                        .mapping
                        .as_ref()
                        .map_or_else(Recipe::default, |mapping| mapping.recipe);
                    let own = executable.own_address(place.address, recipe)?;
                    Ok((Arc::clone(place), own))
                })
                .collect();
            match own {
                Ok(own) => names.extend(
                    own.into_iter()
                        .map(|(place, address)| (place, executable.lines(address))),
                ),
                Err(error) => {
                    self.violations.insert(format!("{build_id}: {error}"));
                }
            }
        }
        names
    }

    /// Types of the profiles in a span.
    #[must_use]
    pub fn profile_types(&self, span: Span) -> BTreeSet<ProfileType> {
        self.profiles
            .iter()
            .filter(|profile| span.holds(profile.time_nanos) && !profile.samples.is_empty())
            .map(|profile| profile.profile_type.clone())
            .collect()
    }

    /// Label names of the series in a span; those of samples are lost.
    pub fn labels(&self, span: Span, profile_type: &str) -> Result<BTreeSet<String>, Refusal> {
        Ok(self
            .of_type(span, profile_type)?
            .flat_map(|profile| profile.labels.keys().cloned())
            .collect())
    }

    /// Values of one label.
    pub fn values(
        &self,
        label: &str,
        span: Span,
        profile_type: &str,
    ) -> Result<BTreeSet<String>, Refusal> {
        Ok(self
            .of_type(span, profile_type)?
            .filter_map(|profile| profile.labels.get(label))
            .filter(|value| !value.is_empty())
            .cloned()
            .collect())
    }

    fn of_type(
        &self,
        span: Span,
        profile_type: &str,
    ) -> Result<impl Iterator<Item = &StoredProfile>, Refusal> {
        let wanted = match profile_type {
            "" => None,
            text => Some(ProfileType::parse(text)?),
        };
        Ok(self.profiles.iter().filter(move |profile| {
            span.holds(profile.time_nanos)
                && !profile.samples.is_empty()
                && wanted
                    .as_ref()
                    .is_none_or(|wanted| *wanted == profile.profile_type)
        }))
    }
}
