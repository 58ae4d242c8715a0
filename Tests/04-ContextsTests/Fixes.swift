@testable import Contexts
