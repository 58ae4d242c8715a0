import CKernel

/// Links what ThreadSanitizer is not to report into whatever uses this module; why, stands there.
let threadSanitizerSuppressions = __tsan_default_suppressions
