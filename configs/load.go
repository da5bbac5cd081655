package configs

// Rule checks what no section can check alone, such as a sum over all sections. It reports its faults as a Validator
// does, with full paths.
type Rule func(*Set) error

// Load fills the sections of the modules from their defaults and the source. It returns every fault at once, as a
// *FaultsError: unreadable files, unknown sections, keys and variables, values of the wrong type, the faults that each
// section's Validate returns, and those that the rules return. A key with a fault keeps its default while the rest is
// checked. The messages do not show what may be a secret: see Conceal.
//
// Load reads nothing but its arguments and the files that they name.
func Load(sections []Section, source Source, rules ...Rule) (*Set, error) {
	set, err := Inspect(sections, source, rules...)
	if err != nil {
		return nil, err
	}
	return set, nil
}

// Inspect is Load for somebody who looks at a configuration: beside the error it returns the configuration as far as it
// can be read. In it a value that cannot be read is the default. The configuration is nil only if the modules are at
// fault.
func Inspect(sections []Section, source Source, rules ...Rule) (*Set, error) {
	layout, err := newLayout(sections)
	if err != nil {
		return nil, err
	}
	var faults Faults
	r := &reader{
		layout: layout, faults: &faults, elsewhere: source.Elsewhere, origins: map[string]string{},
		values: map[string]any{},
	}
	if source.named == nil {
		source = source.Read()
	}
	for i, name := range source.Files {
		r.file(name, source.files[i])
	}
	r.environ(source.Environ)

	set := &Set{layout: layout, origins: r.origins, unread: map[string]bool{}}
	for _, path := range layout.paths {
		value, given := r.values[path]
		if !given {
			continue
		}
		if err := layout.byPath[path].set(value); err != nil {
			faults.Addf(path, "%s (%s)", err, r.origins[path])
			set.unread[path] = true
		}
		if named, is := layout.byPath[path].value.Addr().Interface().(interface{ read(*namedFiles) error }); is {
			if err := named.read(source.named); err != nil {
				faults.Addf(path, "%s (%s)", err, r.origins[path])
			}
		}
	}
	source.named.forget()
	set.check(&faults, rules)
	r.conceal(&faults)
	set.faults = faults.list
	return set, faults.Err()
}

// conceal takes the secrets of all given values out of the messages. A message about one key may quote another.
func (r *reader) conceal(faults *Faults) {
	var secrets []string
	for path, value := range r.values {
		secrets = append(secrets, r.layout.byPath[path].secretsOf(value)...)
	}
	for i := range faults.list {
		faults.list[i].Message = concealAll(faults.list[i].Message, secrets)
	}
}

// check adds the faults that the sections and the rules return. It leaves out faults about a key that has one already,
// since such a key holds its default.
func (s *Set) check(faults *Faults, rules []Rule) {
	var found Faults
	for _, section := range s.layout.sections {
		if validator, ok := section.value.Interface().(Validator); ok {
			found.Nest(section.name, validator.Validate())
		}
	}
	for _, rule := range rules {
		found.Nest("", rule(s))
	}
	faulty := map[string]bool{}
	for _, fault := range faults.list {
		faulty[fault.Key] = true
	}
	for _, fault := range found.list {
		if faulty[fault.Key] {
			continue
		}
		if origin, given := s.origins[fault.Key]; given {
			fault.Message += " (" + origin + ")"
		}
		faults.list = append(faults.list, fault)
	}
}
