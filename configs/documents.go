package configs

// Files is a list of paths of files, such as documents that a module reads. Load reads the files. So Files of which one
// has changed is another value, and Live exchanges the configuration as if the key had changed. A file has at most
// 4 MiB.
type Files struct {
	paths []string
	files []File
}

// File is a file that the configuration names.
type File struct {
	Path string
	// Data is what the file held when the configuration was loaded. Nobody changes it.
	Data []byte
}

// FilesOf returns the files as if they had been read.
func FilesOf(files ...File) Files {
	f := Files{files: files}
	for _, file := range files {
		f.paths = append(f.paths, file.Path)
	}
	return f
}

// All returns the files in their order.
func (f Files) All() []File { return f.files }

// read takes what the files hold. Files keep what they hold if one cannot be read.
func (f *Files) read(named *namedFiles) error {
	var files []File
	var faults Faults
	for _, path := range f.paths {
		content := named.get(path)
		if content.err != nil {
			faults.Addf(path, "cannot be read: %s", content.err)
			continue
		}
		files = append(files, File{Path: path, Data: content.data})
	}
	if err := faults.Err(); err != nil {
		return err
	}
	f.files = files
	return nil
}
